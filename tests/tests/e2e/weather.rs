//! Bad networks between workers and a host: loss, delay, one way only, and a body that stops half-way.

use std::thread;

use gantry::demo::mail::Mail;
use gantry_tests::cluster::RULES;
use gantry_tests::site::slow;
use gantry_tests::smtp::{deliver, note};
use gantry_tests::weather::ALL;
use gantry_tests::{Place, Site, Weather, await_that, seed};

const TO: &str = "b@recipient.example";
/// Above the windows of a stream, so that it is long under way when the network stops.
const LARGE_BYTES: usize = 8_000_000;

/// A host, and workers of these names that reach it through the same weather.
fn site(workers: &[&str], modules: &str) -> (Site, Weather) {
    let (mut site, here) = (Site::new(), Place::here());
    site.add_host("mx1", &here, here.address, "127.0.0.0/8");
    let weather = site.send_through("mx1", seed());
    for name in workers {
        site.add_worker(name, &here, &[("mx1", "")], modules);
    }
    site.await_ready("mx1", workers.len());
    (site, weather)
}

/// Nearly every third datagram is lost each way: mail is slower, and nothing is taken from a worker that lives.
#[test]
fn mail_flows_through_heavy_loss_without_false_takeovers() {
    let (site, weather) = site(&["pc-1", "pc-2"], &slow(20));
    weather.up.lose(30);
    weather.down.lose(30);
    let sent = site.source(&["mx1"], 8).send(&Mail::generated(seed(), 80), &|_| {}).unwrap();
    site.balance(&sent);
    assert!(weather.up.counts().1 > 0 && weather.down.counts().1 > 0, "datagrams were lost");
    assert_eq!(site.status("mx1").unwrap().counter("taken_over"), 0, "{}", site.logs());
}

/// A line round the world: each beat comes late, but it comes.
#[test]
fn mail_flows_over_a_slow_line_without_false_takeovers() {
    let (site, weather) = site(&["pc-1", "pc-2"], RULES);
    weather.up.delay(200);
    weather.down.delay(200);
    let sent = site.source(&["mx1"], 8).send(&Mail::generated(seed(), 40), &|_| {}).unwrap();
    site.balance(&sent);
    assert_eq!(site.status("mx1").unwrap().counter("taken_over"), 0, "{}", site.logs());
}

/// First nothing reaches the host, then nothing comes from it: each time the link ends, and all is well when the line is.
#[test]
fn a_line_that_works_one_way_only_is_as_good_as_none() {
    let (site, weather) = site(&["pc-1"], &slow(50));
    let source = site.source(&["mx1"], 8);
    let sent = thread::scope(|scope| {
        let sending = scope.spawn(|| source.send(&Mail::generated(seed(), 120), &|_| {}).unwrap());
        for way in [&weather.up, &weather.down] {
            let before = site.received().len();
            await_that("mail flows", || (site.received().len() >= before + 10).then_some(()));
            way.lose(ALL);
            await_that("the host has noticed", || {
                let linked = site.status("mx1")?.worker("pc-1")?.linked;
                (!linked).then_some(())
            });
            way.lose(0);
            await_that("it is back", || site.status("mx1")?.worker("pc-1")?.linked.then_some(()));
        }
        sending.join().unwrap()
    });
    site.balance(&sent);
}

/// The network stops in the middle of a message's body: the part is never taken for the whole, and another worker, which
/// the weather does not touch, gets all of it.
#[test]
fn a_body_that_stops_half_way_goes_to_another() {
    let (mut site, weather) = site(&["pc-1"], RULES);
    // Slow, so that the transfer is still under way when it is stopped.
    weather.down.delay(50);
    let infected = gantry::demo::mail::eicar();
    let large = note(
        "large",
        &format!("{}\r\n{infected}", "0123456789 abcdefghij\r\n".repeat(LARGE_BYTES / 23)),
    );
    let before = weather.down.counts().0;
    deliver(site.hosts["mx1"].intake, TO, &large);
    await_that("the body is under way", || (weather.down.counts().0 > before + 200).then_some(()));
    weather.down.lose(ALL);
    site.send_straight("mx1");
    site.add_worker("pc-2", &Place::here(), &[("mx1", "")], RULES);
    await_that("it is where it belongs", || {
        (site.stored("mx1", |state| state == "q").len() == 1).then_some(())
    });
    assert_eq!(site.received().len(), 0, "nothing of it came out");
}
