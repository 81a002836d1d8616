//! Clients that others wrote.

use std::process::Stdio;

use super::*;

#[tokio::test]
async fn swaks_delivers() {
    let mut site = Site::start(hook()).await;
    let swaks = tokio::task::spawn_blocking({
        let port = site.address.port().to_string();
        move || {
            std::process::Command::new("swaks")
                .args(["--server", "127.0.0.1", "--port", &port, "--pipeline"])
                .args(["--helo", "swaks.example", "--from", "from@example.com"])
                .args(["--to", "a@example.com,b@example.com"])
                .args(["--data", "Subject: from swaks\\n\\n.dot\\nlast"])
                .stdin(Stdio::null())
                .output()
        }
    });
    let output = match soon(swaks).await.unwrap() {
        Ok(output) => output,
        Err(error) => return eprintln!("skipped: swaks cannot be run: {error}"),
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let (marked, ..) = site.marked().await;
    assert_eq!(marked.recipients, 2);
    let body = String::from_utf8(site.body(marked.id)).unwrap();
    assert!(body.starts_with("Subject: from swaks\r\n\r\n.dot\r\nlast\r\n"), "{body:?}");
}
