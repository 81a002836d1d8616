//! The bundled rules on whole messages, by the one public way in.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::{Cursor, Write};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use gantry_protocol::verdict::Outcome;
use gantry_scanners::api::{Job, Progress, Source};
use gantry_scanners::registry::{ModuleConfig, build};
use gantry_scanners::testkit::eicar;
use gantry_scanners::yara::YaraConfig;

fn base64_of(bytes: &[u8]) -> Vec<u8> {
    let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
    encoded.as_bytes().chunks(76).collect::<Vec<_>>().join(&b"\r\n"[..])
}

/// A message with one attachment, which is in base64.
fn attached(content_type: &str, content: &[u8]) -> Vec<u8> {
    let head = format!(
        "Subject: a test\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"=_b\"\r\n\r\n\
         --=_b\r\nContent-Type: text/plain\r\n\r\nsee below\r\n\
         --=_b\r\nContent-Type: {content_type}\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    );
    [head.as_bytes(), &base64_of(content), b"\r\n--=_b--\r\n"].concat()
}

fn forwarded(message: &[u8]) -> Vec<u8> {
    let head = b"Subject: Fwd\r\nMIME-Version: 1.0\r\nContent-Type: message/rfc822\r\n\r\n";
    [head, message].concat()
}

fn zipped(name: &str, content: &[u8], method: zip::CompressionMethod) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    zip.start_file(name, options).unwrap();
    zip.write_all(content).unwrap();
    zip.finish().unwrap().into_inner()
}

async fn outcome(message: Vec<u8>) -> Outcome {
    let config = YaraConfig::new("rules", "virus");
    let modules = build(vec![ModuleConfig::Yara(config)]).unwrap();
    let job = Job {
        message_id: "1-1".to_owned(),
        envelope: Arc::default(),
        source: Source::Memory(message.into()),
        progress: Progress::new(Duration::from_secs(60)),
    };
    modules.first().unwrap().process(&job).await.unwrap().outcome
}

#[tokio::test]
async fn eicar_is_found_however_it_is_packed() {
    let plain = [b"Subject: a test\r\n\r\n", eicar().as_slice(), b"\r\n"].concat();
    let deflated = zipped("eicar.com", &eicar(), zip::CompressionMethod::Deflated);
    let twice = zipped("eicar.zip", &deflated, zip::CompressionMethod::Stored);
    let messages = [
        ("plain", plain.clone()),
        ("base64", attached("application/octet-stream", &eicar())),
        ("zip", attached("application/zip", &deflated)),
        ("zip in zip", attached("application/zip", &twice)),
        ("forwarded", forwarded(&attached("application/zip", &deflated))),
    ];
    for (how, message) in messages {
        let found = Outcome::Found { names: vec!["Eicar_Test_String".to_owned()] };
        assert_eq!(outcome(message).await, found, "{how}");
    }
}

#[tokio::test]
async fn the_same_messages_without_it_are_clean() {
    let deflated = zipped("a.txt", b"nothing to see", zip::CompressionMethod::Deflated);
    for message in [
        b"Subject: a test\r\n\r\nnothing to see\r\n".to_vec(),
        attached("application/octet-stream", b"nothing to see"),
        attached("application/zip", &deflated),
        forwarded(&attached("application/zip", &deflated)),
    ] {
        assert_eq!(outcome(message).await, Outcome::Clean);
    }
}
