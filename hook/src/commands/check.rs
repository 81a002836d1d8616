//! `gantry-hook check`: beyond the file itself, what it names: files for TLS and for logging in, pickup folders,
//! programs.

use std::io::Write;
use std::path::Path;

use gantry_mail::date;

use crate::config::{Config, Intake, Mailbox, Release};
use crate::exit::{self, Failure, line};
use crate::intake::unix_ms;
use crate::tls::{ClientTls, EXPIRY_WARNING};

const DAY_S: u64 = 24 * 60 * 60;

/// Says when certificates expire, and what is wrong with the files that mailboxes name.
pub(super) fn check(config: &Config, name: &str, out: &mut dyn Write) -> Result<(), Failure> {
    let now = unix_ms() / 1_000;
    let mut mistakes = Vec::new();
    for mailbox in &config.mailboxes {
        match certificate(mailbox, now) {
            Ok(Some(words)) => line(out, &words)?,
            Ok(None) => {}
            Err(mistake) => mistakes.push(format!("{name}: mailbox {}: {mistake}", mailbox.name)),
        }
        mistakes.extend(
            folder(mailbox).map(|mistake| format!("{name}: mailbox {}: {mistake}", mailbox.name)),
        );
        mistakes.extend(
            way_out(mailbox)
                .into_iter()
                .map(|mistake| format!("{name}: mailbox {}: release: {mistake}", mailbox.name)),
        );
    }
    if !mistakes.is_empty() {
        return Err(exit::mistakes(mistakes));
    }
    line(out, &format!("{name}: no mistakes"))
}

/// What is wrong with the folder of a pickup: the hook does not make it, since its owner decides who may send mail.
fn folder(mailbox: &Mailbox) -> Option<String> {
    let Intake::Pickup(intake) = &mailbox.intake else { return None };
    let at = intake.directory.display();
    let why = match std::fs::metadata(&intake.directory) {
        Ok(found) if found.is_dir() => return None,
        Ok(_) => "it is no folder".to_owned(),
        Err(error) => error.to_string(),
    };
    Some(format!(
        "intake: directory: open {at}: {why}; make a folder in which the hook's user may rename files"
    ))
}

/// What is to be said of the certificate of the mailbox's intake.
fn certificate(mailbox: &Mailbox, now: u64) -> Result<Option<String>, String> {
    let Intake::Smtp(intake) = &mailbox.intake else { return Ok(None) };
    let Some(tls) = &intake.tls else { return Ok(None) };
    let expires = match tls.files.load() {
        Ok(loaded) => loaded.expires_unix,
        Err(error) => return Err(format!("intake: tls: {error}")),
    };
    let (file, at) = (tls.files.certificate.display(), date::rfc3339(expires * 1_000));
    if now > expires {
        return Err(format!("intake: tls: {file} expired at {at}; put a renewed one in its place"));
    }
    let left = expires - now;
    let warning = match left < EXPIRY_WARNING.as_secs() {
        true => "WARNING: ",
        false => "",
    };
    let days = left / DAY_S;
    let name = &mailbox.name;
    Ok(Some(format!("{warning}mailbox {name}: {file} expires at {at}, in {days} days")))
}

fn way_out(mailbox: &Mailbox) -> Vec<String> {
    let release = match &mailbox.release {
        Release::Smtp(release) => release,
        Release::Command(release) => return Vec::from_iter(program(&release.program)),
        Release::Directory(_) => return Vec::new(), // It is made.
    };
    let mut mistakes = Vec::new();
    if let Err(error) = ClientTls::open(&release.tls, &release.address.host) {
        mistakes.push(format!("tls: {error}"));
    }
    if let Some(Err(error)) = release.credentials.as_ref().map(|known| known.password()) {
        mistakes.push(format!("auth_password_file: {error}"));
    }
    mistakes
}

/// What is wrong with a program that messages are to be given to.
fn program(path: &Path) -> Option<String> {
    let at = path.display();
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => None,
        Ok(_) => Some(format!("program: {at} is no file; name the program itself")),
        Err(error) => Some(format!("program: look at {at}: {error}; name a program that is there")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::tls::testing::TestCa;

    const CONFIG: &str = r#"
name = "mx1"
spool = "spool"
listen = "127.0.0.1:4733"
[[mailbox]]
name = "mail.box"
needs = []
custody = "hook"
when_unprocessed = "wait"
[mailbox.intake]
type = "smtp"
listen = "127.0.0.1:10025"
tls = { certificate = "mx1.example.pem", key = "mx1.example.key" }
[mailbox.release]
type = "smtp"
address = "127.0.0.1:10026"
tls = "required"
tls_ca = "ca.pem"
tls_name = "mx.example"
auth_user = "gantry"
auth_password_file = "password"
"#;

    #[test]
    fn it_says_when_certificates_expire_and_which_files_are_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hook.toml");
        std::fs::write(&file, CONFIG).unwrap();
        let config = Config::load(&file).unwrap();
        let told = || {
            let mut out = Vec::new();
            let checked = check(&config, "hook.toml", &mut out).map_err(|failure| failure.text);
            (checked, String::from_utf8(out).unwrap())
        };
        let (checked, _) = told();
        let text = checked.unwrap_err();
        for file in ["mx1.example.pem", "ca.pem", "auth_password_file: read the password in"] {
            assert!(text.contains(file), "{text}");
        }
        let ca = TestCa::new(folder.path());
        let password = folder.path().join("password");
        std::fs::write(&password, "secret\n").unwrap();
        std::fs::set_permissions(&password, PermissionsExt::from_mode(0o600)).unwrap();
        ca.issue("mx1.example", 2_001);
        assert!(told().0.unwrap_err().contains("expired at 2001-01-01"));
        ca.issue("mx1.example", 4_000);
        let (checked, out) = told();
        assert_eq!(checked, Ok(()));
        assert!(out.contains("expires at 4000-01-01") && out.contains("no mistakes"), "{out}");
        assert!(!out.contains("WARNING") && !format!("{config:?}").contains("secret"));
        let soon = 64_060_588_800 - 13 * DAY_S;
        let words = certificate(config.mailboxes.first().unwrap(), soon).unwrap().unwrap();
        assert!(words.starts_with("WARNING: ") && words.ends_with("in 13 days"), "{words}");
    }

    #[test]
    fn a_pickup_folder_and_a_program_have_to_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hook.toml");
        let text = r#"
name = "mx1"
spool = "spool"
listen = "127.0.0.1:4733"
[[mailbox]]
name = "reports"
intake = { type = "pickup", directory = "reports", format = "directory", envelope = "headers" }
release = { type = "command", program = "deliver", arguments = ["{sender}", "{recipients}"] }
needs = []
custody = "hook"
when_unprocessed = "wait"
"#;
        std::fs::write(&file, text).unwrap();
        let config = Config::load(&file).unwrap();
        let told = || check(&config, "hook.toml", &mut Vec::new()).map_err(|failure| failure.text);
        let said = told().unwrap_err();
        assert!(said.starts_with("hook.toml: mailbox reports: intake: directory: open "), "{said}");
        assert!(
            said.contains("\nhook.toml: mailbox reports: release: program: look at "),
            "{said}"
        );
        std::fs::create_dir(folder.path().join("reports")).unwrap();
        std::fs::write(folder.path().join("deliver"), "").unwrap();
        assert_eq!(told(), Ok(()));
    }
}
