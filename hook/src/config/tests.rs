mod mistakes;

use std::path::Path;
use std::time::Duration;

use gantry_config::ConfigError;
use gantry_mail::Mask;
use proptest::prelude::*;

use gantry_daemon::log::Format;

use super::*;

/// As the project's documents show it; `docs/configuration.md` has it too.
const EXAMPLE: &str = r#"name = "mx1"
spool = "spool"                       # relative to this file
listen = "127.0.0.1:4733"             # QUIC
[[mailbox]]
name = "mail.box"
intake = { type = "smtp", listen = "127.0.0.1:10025" }
release = { type = "smtp", address = "127.0.0.1:10026" }
needs = ["virus"]                     # required; [] says that nothing is asked
custody = "upstream"                  # or "hook"
answer_within = "120s"                # upstream only; this is the default
when_unprocessed = "tempfail"
"#;

fn load(text: &str) -> Result<Config, Vec<ConfigError>> {
    Config::from_text(Path::new("hook.toml"), text)
}

/// The example with one line replaced; an empty `by` leaves the lines behind it where they are.
fn with(line: &str, by: &str) -> String {
    assert!(EXAMPLE.lines().any(|own| own.starts_with(line)), "{line:?} is in the example");
    let replaced = EXAMPLE.lines().map(|own| if own.starts_with(line) { by } else { own });
    replaced.collect::<Vec<_>>().join("\n")
}

fn mistakes(text: &str) -> Vec<String> {
    load(text).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

#[test]
fn the_example_means_what_it_says() {
    let config = load(EXAMPLE).unwrap();
    let here = std::env::current_dir().unwrap();
    assert_eq!(config.name, "mx1");
    assert_eq!(config.spool, here.join("spool"));
    assert_eq!(config.identity_dir, here);
    assert_eq!(config.listen, "127.0.0.1:4733".parse().unwrap());
    assert_eq!(config.advertise, None);
    assert_eq!(config.reservation, Reservation::default());
    assert_eq!(config.limits, Limits::default());
    let [mailbox] = config.mailboxes.as_slice() else { panic!("one mailbox") };
    assert_eq!(mailbox.name, "mail.box");
    assert_eq!(mailbox.needs, ["virus"]);
    assert_eq!(
        mailbox.custody,
        Custody::Upstream {
            answer_within: Duration::from_secs(120),
            upstream_timeout: None,
            when_unprocessed: UpstreamUnprocessed::TempFail,
        }
    );
    let Intake::Smtp(intake) = &mailbox.intake else { panic!("no smtp") };
    assert_eq!(intake.listen, "127.0.0.1:10025".parse().unwrap());
    assert_eq!(intake.host_name, "mx1");
    assert_eq!(intake.peers, Network::LOOPBACK);
    assert_eq!(intake.xforward_from, Network::LOOPBACK);
    assert_eq!(intake.stray_cr_lf, StrayCrLf::Reject);
    assert_eq!(intake.limits, SmtpLimits::default());
    assert_eq!(intake.timeouts, IntakeTimeouts::default());
    let Release::Smtp(release) = &mailbox.release else { panic!("no smtp") };
    assert_eq!(release.address.to_string(), "127.0.0.1:10026");
    assert_eq!(release.timeouts, SmtpTimeouts::default());
    assert!(release.xforward);
    // Only answer_within has a default among what decides about unprocessed mail.
    assert_eq!(load(&with("answer_within", "")).unwrap(), config);
}

#[test]
fn both_custodies_with_everything_they_know() {
    let custody = |text: &str| load(text).unwrap().mailboxes.remove(0).custody;
    for (word, meaning) in [
        ("tempfail", UpstreamUnprocessed::TempFail),
        ("wait", UpstreamUnprocessed::Wait),
        ("hold", UpstreamUnprocessed::Hold),
        ("release-unscanned", UpstreamUnprocessed::ReleaseUnscanned),
    ] {
        let text = with("when_unprocessed", &format!("when_unprocessed = {word:?}"));
        let Custody::Upstream { when_unprocessed, .. } = custody(&text) else { panic!("{word}") };
        assert_eq!(when_unprocessed, meaning);
    }
    let after = Duration::from_secs(4 * 3600);
    for (lines, meaning) in [
        (r#"when_unprocessed = "wait""#, HookUnprocessed::Wait),
        (
            r#"when_unprocessed = "hold"
after = "4h""#,
            HookUnprocessed::Hold { after },
        ),
        (
            r#"when_unprocessed = "release-unscanned"
after = "4h""#,
            HookUnprocessed::ReleaseUnscanned { after },
        ),
    ] {
        let text = with("when_unprocessed", lines);
        let text = text.replace("custody = \"upstream\"", "custody = \"hook\"");
        let text = text.replace("answer_within = \"120s\"", "warn_after = \"1h\"");
        assert_eq!(custody(&text), Custody::Hook { when_unprocessed: meaning });
    }
}

#[test]
fn what_decides_about_unprocessed_mail_must_be_written() {
    assert_eq!(
        mistakes(&with("needs", "")),
        [
            "hook.toml:4: mailbox \"mail.box\": needs: it is missing; write what must have been done with a message \
          before it may leave, such as needs = [\"virus\"]; needs = [] says that nothing is asked"
        ]
    );
    assert_eq!(
        mistakes(&with("when_unprocessed", "")),
        [
            "hook.toml:4: mailbox \"mail.box\": when_unprocessed: it is missing; write what happens when no worker \
          answers in time: \"tempfail\" (4xx, the sender keeps it), \"wait\" (store it and wait for a worker), \
          \"hold\" (store it for an operator) or \"release-unscanned\" (let it through)"
        ]
    );
    assert_eq!(
        mistakes(&with("custody", "")),
        [
            "hook.toml:4: mailbox \"mail.box\": custody: it is missing; write \"upstream\" (the sender keeps the \
          message until it is processed) or \"hook\" (it is stored here and answered at once)"
        ]
    );
    assert!(
        load(&with("needs", "needs = []")).is_ok_and(|config| config.mailboxes[0].needs.is_empty())
    );
}

#[test]
fn every_key_reaches_its_place() {
    let text = "name = 'mx1'\nspool = '/var/spool/gantry'\nidentity = 'keys'\nlisten = '[::]:4733'\nlog = 'json'\n\
        advertise = 'mx1.example.com:4733'\n\
        policy = 'abababababababababababababababababababababababababababababababab'\n\
        policy_also = 'cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd'\n\
        worker = [{ address = 'pc-1.example.com:4734', name = 'pc-*' }]\n\
        [reservation]\nbeat = '100ms'\nbeat_idle = '1s'\ntime_max = '10m'\nsilence_max = '5m'\nattempts_max = 4\n\
        returns_max = 50\n\
        [limits]\nupstream_memory_max = '5MiB'\nupstream_disk_max = '6GiB'\nspool_max = '7GiB'\nspool_free_min = '8MiB'\n\
        [quarantine]\nkeep = '30d'\nmax_bytes = '9GiB'\nwhen_full = 'remove-oldest'\n\
        [held]\nkeep = '90d'\nmax_bytes = '2GiB'\n\
        [history]\nmax_bytes = '7MiB'\n[metrics]\nlisten = '10.0.0.1:9464'\nbeyond_loopback = true\n\
        [[mailbox]]\nname = 'in'\nneeds = []\ncustody = 'upstream'\nanswer_within = '80s'\nupstream_timeout = '90s'\n\
        when_unprocessed = 'wait'\nwarn_after = '7m'\nreject_late = 'hold'\nbehind_queue = true\n\
        [mailbox.originated]\nsenders = ['<>']\nrecipients = ['*@example.com', 'sender']\n\
        [mailbox.intake]\ntype = 'smtp'\nlisten = '0.0.0.0:25'\nhostname = 'in.example.com'\npeers = ['10.0.0.0/8']\n\
        xforward_from = ['10.0.0.1']\nrecipients_max = 8\nmessage_size_max = '9MiB'\nconnections_max = 10\n\
        connections_per_client_max = 2\nstray_cr_lf = 'normalise'\ncommand_timeout = '11s'\ndata_timeout = '12s'\n\
        message_timeout = '13s'\n\
        [mailbox.intake.tls]\ncertificate = '/tls/in.pem'\nkey = '/tls/in.key'\nrequired = true\n\
        [mailbox.release]\ntype = 'smtp'\naddress = 'out.example.com:26'\nhostname = 'hook.example.com'\n\
        authserv_id = 'id.example.com'\nxforward = false\nconnect_timeout = '14s'\ncommand_timeout = '15s'\n\
        tls = 'required'\ntls_ca = '/tls/ca.pem'\ntls_name = 'name.example.com'\nauth_user = 'me'\n\
        auth_password_file = '/tls/password'\nauth_without_tls = false\ndata_timeout = '16s'\nblock_timeout = '17s'\nfinal_dot_timeout = '18s'\ntotal_timeout = '19s'\n\
        connections_max = 20\nqueue_lifetime = '21h'\nretry_first = '22s'\nretry_max = '23m'\n\
        [[mailbox]]\nname = 'files'\nneeds = []\ncustody = 'hook'\nwhen_unprocessed = 'wait'\n\
        [mailbox.intake]\ntype = 'pickup'\ndirectory = 'in'\nformat = 'directory'\nenvelope = 'sidecar'\n\
        settle = '3s'\npoll = '9s'\nmessage_size_max = '5MiB'\n\
        [mailbox.release]\ntype = 'directory'\npath = '/out'\nformat = 'maildir'\nenvelope = 'headers'\n\
        line_ends = 'crlf'\nhostname = 'files.example.com'\nauthserv_id = 'files'\nqueue_lifetime = '1h'\n\
        retry_first = '1s'\nretry_max = '2s'\n\
        [[mailbox]]\nname = 'programs'\nneeds = []\ncustody = 'hook'\nwhen_unprocessed = 'wait'\n\
        [mailbox.intake]\ntype = 'mark'\nmessage_size_max = '7MiB'\n\
        [mailbox.release]\ntype = 'command'\nprogram = '/usr/sbin/sendmail'\n\
        arguments = ['-f', '{sender}', '--', '{recipients}']\nline_ends = 'crlf'\ntime_max = '30s'\n\
        processes_max = 3\nhostname = 'programs.example.com'\nauthserv_id = 'programs'\nqueue_lifetime = '1h'\n\
        retry_first = '1s'\nretry_max = '2s'\n";
    let config = load(text).unwrap();
    let seconds = Duration::from_secs;
    assert_eq!(config.spool, Path::new("/var/spool/gantry"));
    assert_eq!(config.identity_dir, std::env::current_dir().unwrap().join("keys"));
    assert_eq!(config.advertise.unwrap().to_string(), "mx1.example.com:4733");
    assert_eq!(config.policy, Digest([0xab; 32]));
    assert_eq!(config.policy_also, Some(Digest([0xcd; 32])));
    let worker = &config.workers[0];
    let said = (worker.address.to_string(), worker.name.to_string());
    assert_eq!(said, ("pc-1.example.com:4734".to_owned(), "pc-*".to_owned()));
    let reservation = config.reservation;
    assert_eq!((reservation.beat, reservation.beat_idle), (Duration::from_millis(100), seconds(1)));
    assert_eq!((reservation.time_max, reservation.silence_max), (seconds(600), seconds(300)));
    assert_eq!((reservation.attempts_max, reservation.returns_max), (4, 50));
    assert_eq!(config.limits.upstream_memory_bytes_max, 5 << 20);
    assert_eq!(config.limits.upstream_disk_bytes_max, 6 << 30);
    assert_eq!(config.limits.spool_bytes_max, Some(7 << 30));
    assert_eq!(config.limits.spool_free_bytes_min, 8 << 20);
    let kept = |days: u64, gib: u64, removes_oldest| Retention {
        keep: Some(seconds(days * 86_400)),
        bytes_max: Some(gib << 30),
        removes_oldest,
    };
    assert_eq!((config.quarantine, config.held), (kept(30, 9, true), kept(90, 2, false)));
    assert_eq!((config.log, config.history_bytes_max), (Format::Json, 7 << 20));
    assert_eq!(config.metrics, Some("10.0.0.1:9464".parse().unwrap()));
    let mailbox = &config.mailboxes[0];
    assert_eq!(mailbox.warn_after, seconds(420));
    assert_eq!((mailbox.reject_late, mailbox.behind_queue), (RejectLate::Hold, true));
    let allowed = OriginatedAllowed {
        senders: vec![Mask::new("")],
        recipients: vec![Mask::new("*@example.com")],
        to_sender: true,
        to_recipients: false,
    };
    assert_eq!(mailbox.originated, Some(allowed));
    assert_eq!(
        mailbox.custody,
        Custody::Upstream {
            answer_within: seconds(80),
            upstream_timeout: Some(seconds(90)),
            when_unprocessed: UpstreamUnprocessed::Wait,
        }
    );
    let Intake::Smtp(intake) = &mailbox.intake else { panic!("no smtp") };
    assert_eq!(intake.host_name, "in.example.com");
    assert_eq!(intake.peers, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(intake.xforward_from, ["10.0.0.1".parse().unwrap()]);
    assert_eq!(intake.stray_cr_lf, StrayCrLf::Normalise);
    assert_eq!((intake.limits.recipients_max, intake.limits.message_bytes_max), (8, 9 << 20));
    assert_eq!((intake.limits.connections_max, intake.limits.connections_per_client_max), (10, 2));
    assert_eq!((intake.timeouts.command, intake.timeouts.data), (seconds(11), seconds(12)));
    assert_eq!(intake.timeouts.message, seconds(13));
    let Release::Smtp(release) = &mailbox.release else { panic!("no smtp") };
    assert_eq!(release.address.to_string(), "out.example.com:26");
    assert_eq!(release.host_name, "hook.example.com");
    assert_eq!(release.authserv_id, "id.example.com");
    assert!(!release.xforward);
    let tls = intake.tls.as_ref().unwrap();
    assert_eq!(tls.files.certificate, Path::new("/tls/in.pem"));
    assert_eq!((tls.files.key.as_path(), tls.required), (Path::new("/tls/in.key"), true));
    let name = "name.example.com".to_owned();
    assert_eq!(release.tls, Demand::Required { ca: "/tls/ca.pem".into(), name });
    let credentials = release.credentials.as_ref().unwrap();
    assert_eq!(credentials.password_file, Path::new("/tls/password"));
    assert_eq!((credentials.user.as_str(), credentials.without_tls), ("me", false));
    let timeouts = &release.timeouts;
    assert_eq!((timeouts.connect, timeouts.command), (seconds(14), seconds(15)));
    assert_eq!((timeouts.data, timeouts.block), (seconds(16), seconds(17)));
    assert_eq!((timeouts.final_dot, timeouts.total), (seconds(18), seconds(19)));
    assert_eq!(release.connections_max, 20);
    assert_eq!(release.queue.lifetime, seconds(21 * 3600));
    assert_eq!(
        (release.queue.retry_first, release.queue.retry_max),
        (seconds(22), seconds(23 * 60))
    );
    local_ways(&config.mailboxes[1..]);
    for key in KEYS.iter().flat_map(|(_, keys)| *keys).filter(|key| **key != "after") {
        let written = [format!("\n{key} = "), format!("[{key}]"), format!("[mailbox.{key}]")];
        assert!(
            *key == "name" || written.iter().any(|form| text.contains(form)),
            "{key} is tried here"
        );
    }
}

/// The default and every mistake of what a way out demands of its next hop.
#[test]
fn a_password_goes_only_to_a_verified_next_hop_or_one_on_this_machine() {
    let with = |address: &str, keys: &str| {
        EXAMPLE.replace("address = \"127.0.0.1:10026\"", &format!("address = \"{address}\"{keys}"))
    };
    let demand = |text: &str| match &load(text).unwrap().mailboxes[0].release {
        Release::Smtp(release) => release.tls.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(demand(&with("127.0.0.1:26", "")), Demand::Off);
    assert_eq!(demand(&with("localhost:26", "")), Demand::Off);
    assert_eq!(demand(&with("192.0.2.1:26", "")), Demand::Opportunistic);
    assert_eq!(demand(&with("192.0.2.1:26", ", tls = \"off\"")), Demand::Off);
    let required = ", tls = \"required\", tls_ca = \"/ca.pem\"";
    let name = "mx.example.com".to_owned();
    let expected = Demand::Required { ca: "/ca.pem".into(), name };
    assert_eq!(demand(&with("mx.example.com:26", required)), expected);
    let auth = ", auth_user = \"me\", auth_password_file = \"/p\"";
    assert!(load(&with("mx.example.com:26", &format!("{required}{auth}"))).is_ok());
    let here = format!("{auth}, auth_without_tls = true");
    assert!(load(&with("127.0.0.1:26", &here)).is_ok());
    for (text, why) in [
        (with("192.0.2.1:26", auth), "sent only under TLS to a next hop that was verified"),
        (with("127.0.0.1:26", auth), "auth_without_tls = true also does"),
        (with("192.0.2.1:26", &here), "could be heard on the way"),
        (with("192.0.2.1:26", ", auth_user = \"me\""), "auth_password_file: it is missing"),
        (with("192.0.2.1:26", ", auth_password_file = \"/p\""), "there is no auth_user"),
        (with("192.0.2.1:26", ", tls = \"required\""), "tls_ca: it is missing"),
        (with("192.0.2.1:26", ", tls_ca = \"/ca.pem\""), "only tls = \"required\" verifies"),
        (with("192.0.2.1:26", ", tls = \"on\""), "\"opportunistic\""),
        (
            with("192.0.2.1:26", &format!("{required}, tls_name = \"a b\"")),
            "neither a host name nor an address",
        ),
    ] {
        let told = mistakes(&text).join("\n");
        assert!(told.contains(why) && told.contains("hook.toml:"), "{why}: {told}");
    }
}

#[test]
fn lmtp_has_the_keys_of_smtp() {
    let text = EXAMPLE.replace("type = \"smtp\"", "type = \"lmtp\"");
    let mailbox = load(&text).unwrap().mailboxes.remove(0);
    let (Intake::Smtp(intake), Release::Smtp(release)) = (&mailbox.intake, &mailbox.release) else {
        panic!("{mailbox:?}")
    };
    assert_eq!((intake.protocol, release.protocol), (Protocol::Lmtp, Protocol::Lmtp));
    let told = mistakes(&text.replace("10025", "25"));
    assert!(told.len() == 1 && told[0].contains("RFC 2033"), "{told:?}");
}

fn local_ways(mailboxes: &[Mailbox]) {
    let [files, programs] = mailboxes else { panic!("two mailboxes") };
    let Intake::Pickup(intake) = &files.intake else { panic!("no pickup") };
    assert_eq!(intake.directory, std::env::current_dir().unwrap().join("in"));
    assert_eq!((intake.format, intake.envelope), (FolderFormat::Directory, EnvelopeForm::Sidecar));
    assert_eq!((intake.settle, intake.poll), (Duration::from_secs(3), Duration::from_secs(9)));
    assert_eq!(files.intake.message_bytes_max(), 5 << 20);
    let Release::Directory(release) = &files.release else { panic!("no directory") };
    assert_eq!((release.format, release.envelope), (FolderFormat::Maildir, EnvelopeForm::Headers));
    assert_eq!((release.path.as_path(), release.line_ends), (Path::new("/out"), LineEnds::Crlf));
    assert_eq!(release.names.host_name, "files.example.com");
    assert_eq!(release.names.authserv_id, "files");
    assert_eq!(files.release.queue().retry_max, Duration::from_secs(2));
    assert_eq!(programs.intake, Intake::Mark { message_bytes_max: 7 << 20 });
    let Release::Command(release) = &programs.release else { panic!("no command") };
    let text = |text: &str| Argument::Text(text.to_owned());
    assert_eq!(release.arguments, [text("-f"), Argument::Sender, text("--"), Argument::Recipients]);
    assert_eq!((release.time_max, release.processes_max), (Duration::from_secs(30), 3));
    assert_eq!(programs.release.at_once_max(), 3);
}

#[test]
fn mistakes_in_local_ways_are_told() {
    let pickup = r#"intake = { type = "pickup", directory = "in", format = "directory", envelope = "headers" }"#;
    let by = |line: &str, by: &str| {
        let text = with(line, by).replace("custody = \"upstream\"", "custody = \"hook\"");
        text.replace("answer_within = \"120s\"", "").replace("\"tempfail\"", "\"wait\"")
    };
    assert_eq!(mistakes(&by("intake", pickup)), [""; 0]);
    let command = |arguments: &str| {
        by(
            "release",
            &format!(
                "release = {{ type = \"command\", program = \"/bin/x\", arguments = {arguments} }}"
            ),
        )
    };
    assert_eq!(mistakes(&command(r#"["{recipient}"]"#)), [""; 0]);
    for (text, reason) in [
        (with("intake", pickup), "custody: whoever leaves a message in a folder"),
        (with("intake", "intake = { type = \"mark\" }"), "custody: whoever leaves"),
        (
            by("intake", &pickup.replace("envelope = \"headers\"", "settle = \"1s\"")),
            "envelope: it is missing",
        ),
        (
            by(
                "intake",
                &pickup
                    .replace("\"directory\"", "\"maildir\"")
                    .replace("\"headers\"", "\"headers\", settle = \"1s\""),
            ),
            "settle: what stands in a Maildir",
        ),
        (command(r#"["-f", "{sender}"]"#), "the recipients stand in 0 of them"),
        (command(r#"["{recipient}", "{recipients}"]"#), "the recipients stand in 2 of them"),
        (command(r#"["--to={recipient}"]"#), "never part of one"),
        (
            command(r#"["{recipient}", "{from}"]"#),
            "there are {sender}, {recipient} and {recipients}",
        ),
        (command("\"x {recipient}\""), "it is a string"),
        (
            with(
                "release",
                "release = { type = \"command\", program = \"/x\", arguments = [\"{recipient}\"], time_max = \"120s\" }",
            ),
            "before the program is given up",
        ),
    ] {
        let told = mistakes(&text);
        assert!(told.len() == 1 && told[0].contains(reason), "{reason}: {told:?}");
    }
    let circle = by("intake", pickup).replace(
        r#"release = { type = "smtp", address = "127.0.0.1:10026" }"#,
        r#"release = { type = "directory", path = "in", format = "directory", envelope = "headers" }"#,
    );
    assert!(mistakes(&circle)[0].contains("come back for ever"), "{:?}", mistakes(&circle));
}

#[test]
fn the_hooks_custody_refuses_what_only_a_waiting_sender_has() {
    let hook = |lines: &str| {
        let text = with("when_unprocessed", lines).replace("\"upstream\"", "\"hook\"");
        mistakes(&text.replace("answer_within = \"120s\"", ""))
    };
    let told = hook("when_unprocessed = \"tempfail\"");
    assert!(
        told[0].starts_with("hook.toml:11: mailbox \"mail.box\": when_unprocessed: in the hook's custody the sender already has our yes; write what happens"),
        "{told:?}"
    );
    for word in ["hold", "release-unscanned"] {
        assert_eq!(
            hook(&format!("when_unprocessed = {word:?}")),
            [
                "hook.toml:11: mailbox \"mail.box\": when_unprocessed: it needs the time after which it happens; add \
              after = \"4h\""
            ]
        );
    }
    assert_eq!(
        hook("after = \"4h\"\nwhen_unprocessed = \"wait\""),
        [
            "hook.toml:11: mailbox \"mail.box\": after: \"wait\" is for as long as it takes; remove it, or write \
          when_unprocessed = \"hold\""
        ]
    );
}

#[test]
fn whatever_lies_in_the_spool_is_no_mailboxs_name_and_its_sockets_have_room() {
    for name in ["audit.log", "audit.log.1", "orders", "control", "mark.new"] {
        let wrong = mistakes(&with("name = \"mail", &format!("name = \"{name}\"")));
        assert!(wrong.len() == 1 && wrong[0].contains("file of its own"), "{name}: {wrong:?}");
    }
    let spool = |length: usize| format!("spool = \"/{}\"", "s".repeat(length - 1));
    assert_eq!(mistakes(&with("spool", &spool(95))), [""; 0]);
    let wrong = mistakes(&with("spool", &spool(96)));
    assert!(
        wrong.len() == 1 && wrong[0].contains("hook.toml:2: spool: the path of its socket"),
        "{wrong:?}"
    );
}

#[test]
fn mailboxes_share_neither_name_nor_listener() {
    let second = EXAMPLE.split_once("[[mailbox]]").unwrap().1;
    let text = format!("{EXAMPLE}[[mailbox]]{second}");
    assert_eq!(
        mistakes(&text),
        [
            "hook.toml:13: mailbox \"mail.box\": name: another mailbox has this name; write a name of its own",
            "hook.toml:14: mailbox \"mail.box\": intake: listen: 127.0.0.1:10025 is taken by mailbox \"mail.box\"; write \
             another one"
        ]
    );
    let apart = text.replacen("mail.box", "out.box", 1).replacen("10025", "10125", 1);
    assert_eq!(load(&apart).unwrap().mailboxes.len(), 2);
    let free = text.replacen("mail.box", "out.box", 1).replace("10025", "0");
    assert!(load(&free).is_ok(), "port 0 stands for any free one");
}

#[test]
fn all_mistakes_are_told_in_the_order_of_the_file() {
    let text = "nmae = 'mx1'\nspool = 3\nlisten = '127.0.0.1:4733'\n[reservation]\nattempts_max = 10\nbeat = '1h'\n\
                [limits]\nupstream_memory_max = '1GB'\n[[mailbox]]\nname = 'a'\ncustody = 'none'\n";
    let told = mistakes(text);
    let places: Vec<_> = told.iter().map(|line| line.split("; ").next().unwrap()).collect();
    assert_eq!(
        places,
        [
            "hook.toml:1: nmae: there is no such key",
            "hook.toml:1: name: it is missing",
            "hook.toml:2: spool: it is a number",
            "hook.toml:5: reservation: attempts_max: 10 is too much",
            "hook.toml:6: reservation: beat: \"1h\" is too much",
            "hook.toml:8: limits: upstream_memory_max: \"1GB\": a size is a whole number and B, KiB, MiB, GiB or TiB",
            "hook.toml:9: mailbox \"a\": needs: it is missing",
            "hook.toml:9: mailbox \"a\": intake: it is missing",
            "hook.toml:9: mailbox \"a\": release: it is missing",
            "hook.toml:11: mailbox \"a\": custody: \"none\": there is no such word here",
        ]
    );
}

#[test]
fn a_hook_without_mailboxes_has_nothing_to_do() {
    let text = EXAMPLE.split_once("[[mailbox]]").unwrap().0;
    assert_eq!(
        mistakes(text),
        ["hook.toml:1: mailbox: there is none; write at least one [[mailbox]]"]
    );
    let table = with("[[mailbox]]", "[mailbox]");
    assert_eq!(
        mistakes(&table)[0],
        "hook.toml:4: mailbox: it is a table; write [[mailbox]] above its keys"
    );
}

#[test]
fn reservations_cannot_outlast_themselves() {
    let with = |lines: &str| format!("{EXAMPLE}[reservation]\n{lines}");
    let short = load(&with("time_max = '2m'")).unwrap().reservation;
    assert_eq!(short.silence_max, Duration::from_secs(120), "a default gives way");
    assert_eq!(
        mistakes(&with("time_max = '2m'\nsilence_max = '3m'")),
        [
            "hook.toml:14: reservation: silence_max: it is longer than time_max; write at most \"120s\", or a longer \
          time_max"
        ]
    );
    assert_eq!(
        mistakes(&with("beat = '2s'\nbeat_idle = '1s'")),
        [
            "hook.toml:14: reservation: beat_idle: it is shorter than beat; write at least \"2s\", or a shorter beat"
        ]
    );
}

/// What was accepted is removed by a rule that stands there, or not at all.
#[test]
fn nothing_is_removed_without_a_rule() {
    let config = load(EXAMPLE).unwrap();
    assert_eq!((config.quarantine, config.held), (Retention::default(), Retention::default()));
    assert_eq!(config.quarantine.keep, None);
    let with = |lines: &str| mistakes(&format!("{EXAMPLE}{lines}"));
    assert_eq!(
        with("[quarantine]\nwhen_full = 'remove-oldest'"),
        [
            "hook.toml:13: quarantine: when_full: without max_bytes it is never full; add max_bytes = \"10GiB\", or \
             remove it"
        ]
    );
    assert_eq!(with("[held]\nmax_bytes = '1GiB'\nwhen_full = 'refuse'").len(), 1, "held has none");
    assert_eq!(with("[held]\nkeep = '0s'").len(), 1);
    assert_eq!(with("[quarantine]\nmax_bytes = '1KiB'").len(), 1);
}

#[test]
fn metrics_for_other_machines_and_too_little_history_are_refused() {
    let mistakes = |more: &str| {
        let told = load(&format!("{more}\n{EXAMPLE}")).unwrap_err();
        told.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let told = mistakes("metrics = { listen = \"0.0.0.0:9464\" }");
    assert!(
        told.contains("hook.toml:1: metrics: listen: ") && told.contains("beyond_loopback"),
        "{told}"
    );
    let told = mistakes("history = { max_bytes = \"1MiB\" }");
    assert!(told.contains("write \"4MiB\" or more, or \"0B\""), "{told}");
    let off = load(&format!("history = {{ max_bytes = \"0B\" }}\n{EXAMPLE}")).unwrap();
    assert_eq!((off.history_bytes_max, off.metrics), (0, None));
}

#[test]
fn every_key_stands_in_the_documentation() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let document = std::fs::read_to_string(document).unwrap();
    for (table, keys) in KEYS {
        let heading = format!("### hook: `{table}`\n");
        let section = document.split_once(&heading).unwrap_or_else(|| panic!("no {heading}")).1;
        let section = section.split("\n#").next().unwrap();
        for key in *keys {
            assert!(section.contains(&format!("\n| `{key}` |")), "{table}: {key}");
        }
        for line in section.lines().filter_map(|line| line.strip_prefix("| `")) {
            let key = line.split('`').next().unwrap();
            assert!(keys.contains(&key), "{table}: {key} is documented and unknown");
        }
    }
    assert!(document.contains(EXAMPLE), "the example stands there as it is tested here");
}

proptest! {
    /// Nothing that a file can hold ends in a panic, and what is refused is refused with a reason.
    #[test]
    fn random_text_is_read_or_refused(text in ".{0,200}") {
        if let Err(mistakes) = load(&text) {
            prop_assert!(!mistakes.is_empty());
        }
    }

    /// The example with a random piece replaced: deeper in than random text gets.
    #[test]
    fn the_damaged_example_is_read_or_refused(
        from in 0..EXAMPLE.len(),
        length in 0..40_usize,
        by in prop_oneof!["[ -~]{0,20}", "[0-9]{1,30}[a-zA-Z]{0,3}", "\\PC{0,8}", "\"\"\"|\\[\\[|\\{|\\[limits\\]|= -1|true"],
    ) {
        let to = (from + length).min(EXAMPLE.len());
        let text = format!("{}{by}{}", &EXAMPLE[..from], &EXAMPLE[to..]);
        if let Err(mistakes) = load(&text) {
            prop_assert!(!mistakes.is_empty());
            prop_assert!(mistakes.len() <= gantry_config::MISTAKES_MAX);
        }
    }
}

#[test]
fn originated_messages_and_late_rejections_are_read() {
    let plain = load(EXAMPLE).unwrap().mailboxes.remove(0);
    assert_eq!((plain.originated, plain.reject_late), (None, RejectLate::Quarantine));
    assert!(!plain.behind_queue);
    for (wrong, reason) in [
        ("originated = { senders = [\"<>\"] }", "recipients: it is missing"),
        ("originated = { senders = [\"<>\"], recipients = [\"<>\"] }", "null sender"),
        ("originated = { senders = [\"me\"], recipients = [] }", "no address and no mask"),
        ("originated = { from = [], senders = [], recipients = [] }", "from"),
        ("reject_late = \"release\"", "reject_late"),
    ] {
        let found = mistakes(&with("needs", &format!("needs = []\n{wrong}")));
        assert!(found.iter().any(|mistake| mistake.contains(reason)), "{wrong}: {found:?}");
    }
    let ours = with("custody", "custody = \"hook\"\nbehind_queue = true");
    let ours = ours.replace("answer_within = \"120s\"", "").replace("\"tempfail\"", "\"wait\"");
    assert!(mistakes(&ours).iter().any(|mistake| mistake.contains("behind_queue")));
}
