#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::time::{Duration, SystemTime};

use tokio::net::{TcpListener, TcpStream};

use super::testing::TestCa;
use super::*;

/// Whether a client that expects this name agrees with the server.
async fn agrees(server: &ServerTls, ca: &Path, name: &str) -> bool {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let demand = Demand::Required { ca: ca.to_owned(), name: name.into() };
    let client = ClientTls::open(&demand, "").unwrap().unwrap();
    let (client, server) = tokio::join!(client.connect(stream), server.accept(accepted));
    client.is_ok() && server.is_ok()
}

#[test]
fn certificate_and_key_must_fit_and_the_end_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let ca = TestCa::new(folder.path());
    let (one, other) = (ca.issue("one.example", 2_030), ca.issue("other.example", 2_001));
    // 2030-01-01 and 2001-01-01, at midnight.
    assert_eq!(one.load().unwrap().expires_unix, 1_893_456_000);
    assert_eq!(other.load().unwrap().expires_unix, 978_307_200, "expired ones are loaded, too");
    let mixed = |certificate: &Path, key: &Path| {
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        CertificateFiles { certificate, key }.load().unwrap_err().to_string()
    };
    let told = mixed(&one.certificate, &other.key);
    assert!(told.contains("the key is not the certificate's"), "{told}");
    assert!(mixed(&one.key, &one.key).contains("no certificate in it"));
    assert!(mixed(&one.certificate, &one.certificate).contains("private key in PEM form"));
    assert!(mixed(&folder.path().join("none"), &one.key).contains("none"));
    std::fs::write(folder.path().join("bad.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
    assert!(mixed(&folder.path().join("bad.pem"), &one.key).contains("bad.pem"));
}

#[tokio::test]
async fn a_renewed_certificate_is_used_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let ca = TestCa::new(folder.path());
    let files = ca.issue("mx.example", 4_000);
    let server = ServerTls::open(files.clone(), false).unwrap();
    assert!(agrees(&server, &ca.file(), "mx.example").await);

    let renewed = ca.issue("new.example", 4_000);
    let mut ticks = 0;
    let mut put = |from: &Path, to: &Path| {
        std::fs::copy(from, to).unwrap();
        // Of two writes in one tick of the file system's clock the second may look like the first.
        ticks += 1;
        let later = SystemTime::now() + Duration::from_secs(ticks);
        std::fs::File::options().write(true).open(to).unwrap().set_modified(later).unwrap();
    };
    // An ACME client replaces one file after the other.
    put(&renewed.certificate, &files.certificate);
    server.look();
    assert!(agrees(&server, &ca.file(), "mx.example").await, "the key is still the former one");
    put(&renewed.key, &files.key);
    server.look();
    assert!(agrees(&server, &ca.file(), "new.example").await);
    assert!(!agrees(&server, &ca.file(), "mx.example").await);
    std::fs::remove_file(&files.key).unwrap();
    server.look();
    assert!(agrees(&server, &ca.file(), "new.example").await);
}
