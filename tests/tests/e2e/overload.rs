//! Far more mail than the workers can take: senders are told so at once, the hook stays small, and nothing is left of it after.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use gantry_tests::site::slow;
use gantry_tests::smtp::{Client, note, offer};
use gantry_tests::{Cluster, PATIENCE, Setup, await_that, until};

const TO: &str = "b@recipient.example";
/// Enough for their messages in upstream custody to be more than may lie here at once.
const SENDERS: usize = 48;
const MESSAGE_BYTES: usize = 100_000;
/// Offered for each that is taken, before it is enough; and taken in each custody, at least.
const TIMES: usize = 10;
const TAKEN_MIN: usize = 10;
/// What the hook may have had in memory: what may wait there, a connection's buffers for each sender, and itself.
const HOOK_BYTES_MAX: u64 = 128 << 20;
const LIMITS: &str = "[limits]\nspool_max = \"1MiB\"\nupstream_memory_max = \"1MiB\"\nupstream_disk_max = \"1MiB\"\n";

/// What the senders were told, in both custodies.
#[derive(Default)]
struct Told {
    taken: [AtomicUsize; 2],
    refused: [AtomicUsize; 2],
    /// Neither yes nor a reply of 4xx.
    otherwise: AtomicUsize,
}

impl Told {
    fn enter(&self, custody: usize, code: Option<u16>) {
        let count = match code {
            Some(250) => &self.taken[custody],
            Some(400..500) => &self.refused[custody],
            _ => &self.otherwise,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn counts(of: &[AtomicUsize; 2]) -> [usize; 2] {
        [0, 1].map(|custody| of[custody].load(Ordering::Relaxed))
    }

    fn is_enough(&self) -> bool {
        let (taken, refused) = (Self::counts(&self.taken), Self::counts(&self.refused));
        let offered: usize = taken.iter().chain(&refused).sum();
        offered >= TIMES * taken.iter().sum::<usize>()
            && taken.iter().all(|count| *count >= TAKEN_MIN)
            && refused.iter().all(|count| *count > 0)
    }
}

/// One message in a connection of its own; `None` where no reply comes.
fn try_once(address: SocketAddr, message: &[u8]) -> Option<u16> {
    let mut client = Client::try_connect(address).ok()?;
    client.send(b"EHLO client.example\r\n").ok()?;
    client.try_reply().ok()?;
    Some(client.transact("sender@client.example", &[TO], message).ok()?.code)
}

#[test]
fn senders_are_told_to_wait_and_the_hook_stays_small() {
    let setup = Setup { tables: LIMITS.to_owned(), ..Setup::default() };
    let mut cluster = Cluster::start(&setup);
    cluster.add_worker_with("pc-1", "concurrency = 2\n", &slow(100));
    cluster.await_ready(1);
    let (told, over) = (Told::default(), AtomicBool::new(false));
    let text = "some line of a text that is long\r\n".repeat(MESSAGE_BYTES / 34);
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let (told, over, text) = (&told, &over, &text);
            let custody = sender % 2;
            let address = [cluster.upstream, cluster.intake][custody];
            scope.spawn(move || {
                for number in 0.. {
                    let message = note(&format!("{sender}-{number}"), text);
                    told.enter(custody, try_once(address, &message));
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        let enough = until(PATIENCE, || told.is_enough().then_some(()));
        over.store(true, Ordering::Relaxed);
        assert!(enough.is_some(), "too little was refused, or too little taken");
    });
    let (taken, refused) = (Told::counts(&told.taken), Told::counts(&told.refused));
    println!("taken {taken:?}, refused {refused:?} (upstream and hook custody)");
    assert_eq!(told.otherwise.load(Ordering::Relaxed), 0, "{}", cluster.logs());

    // What was taken comes out, each once, and mail is taken again as before.
    let taken: usize = taken.iter().sum();
    cluster.await_released(taken);
    await_that("the spool is empty", || cluster.stored_at_all().is_empty().then_some(()));
    for address in [cluster.upstream, cluster.intake] {
        let subject = format!("after-{address}");
        await_that("mail is taken again", || {
            (offer(address, TO, &note(&subject, &text)).code == 250).then_some(())
        });
    }
    let mut copies: BTreeMap<String, usize> = BTreeMap::new();
    for one in cluster.await_released(taken + 2) {
        let mail = fs::read_to_string(&one.path).unwrap();
        let subject = mail.lines().find(|line| line.starts_with("Subject: ")).unwrap();
        *copies.entry(subject.to_owned()).or_default() += 1;
    }
    assert!(copies.values().all(|count| *count == 1), "{copies:?}");
    assert_eq!(copies.len(), taken + 2);
    if let Some(bytes) = cluster.hook.as_ref().unwrap().cost().rss_bytes {
        println!("the hook had {} KiB at most", bytes / 1024);
        assert!(bytes < HOOK_BYTES_MAX, "the hook had {bytes} bytes in memory");
    }
}
