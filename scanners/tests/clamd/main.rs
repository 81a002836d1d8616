//! The clamd module against real clamds, and against servers that do what a real one cannot be made to do.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests fail by panicking"
)]

mod fake;
mod misbehaving;
mod real;

use std::io::{Cursor, Write};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use gantry_protocol::verdict::Outcome;
use gantry_scanners::api::{Job, Module, ModuleError, Progress, Source};
use gantry_scanners::clamd::{ClamdAddress, ClamdConfig, ClamdModule};
use tempfile::SpooledTempFile;

/// Longer than any machine needs for what is expected to happen; only failing tests wait for it.
const LONG: Duration = Duration::from_secs(60);

fn module(address: ClamdAddress, change: impl FnOnce(&mut ClamdConfig)) -> ClamdModule {
    let mut config = ClamdConfig::new("clamav", "virus", address);
    config.connect_timeout = LONG;
    change(&mut config);
    ClamdModule::new(config)
}

fn job(bytes: impl Into<Vec<u8>>) -> Job {
    with_source(Source::Memory(bytes.into().into()))
}

fn job_on_disk(bytes: &[u8]) -> Job {
    let mut file = SpooledTempFile::new(1);
    file.write_all(bytes).unwrap();
    let source = Source::spooled(file).unwrap();
    assert!(matches!(source, Source::File(_)));
    with_source(source)
}

fn with_source(source: Source) -> Job {
    let progress = Progress::new(2 * LONG);
    Job { message_id: "1-1".to_owned(), envelope: Arc::default(), source, progress }
}

async fn outcome(module: &ClamdModule, job: &Job) -> Result<Outcome, ModuleError> {
    module.process(job).await.map(|finding| finding.outcome)
}

fn found(name: &str) -> Result<Outcome, ModuleError> {
    Ok(Outcome::Found { names: vec![name.to_owned()] })
}

fn plain(body: &[u8]) -> Vec<u8> {
    [b"From: <a@example.org>\r\nTo: <b@example.org>\r\nSubject: a test\r\n\r\n", body, b"\r\n"]
        .concat()
}

fn attached(name: &str, content: &[u8]) -> Vec<u8> {
    let encoded = base64::engine::general_purpose::STANDARD.encode(content);
    let lines: Vec<&[u8]> = encoded.as_bytes().chunks(76).collect();
    format!(
        "From: <a@example.org>\r\nTo: <b@example.org>\r\nSubject: a test\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=\"=_b\"\r\n\r\n\
         --=_b\r\nContent-Type: text/plain\r\n\r\nsee below\r\n\
         --=_b\r\nContent-Type: application/octet-stream; name=\"{name}\"\r\n\
         Content-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment; filename=\"{name}\"\r\n\r\n{}\r\n--=_b--\r\n",
        String::from_utf8(lines.join(&b"\r\n"[..])).unwrap()
    )
    .into_bytes()
}

fn zipped(name: &str, content: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(content).unwrap();
    zip.finish().unwrap().into_inner()
}
