//! What clamd, or whatever answers in its place, says.

use gantry_protocol::limits::TEXT_BYTES_MAX;
use gantry_protocol::verdict::Outcome;
use gantry_scanners::clamd::testkit::{outcome, version};

/// Clean is said in one way only, and nothing that is said in a sentence for people can forge a line of a log.
pub(super) fn replies(bytes: &[u8]) {
    let sentence = bytes.iter().position(|byte| *byte == 0).map(|end| &bytes[..end]);
    let text = |text: &str| {
        assert!(text.len() <= 2 * TEXT_BYTES_MAX, "a text of {} bytes", text.len());
        assert!(!text.chars().any(char::is_control), "{text:?}");
    };
    match outcome(bytes) {
        Ok(Outcome::Clean) => {
            let said = String::from_utf8_lossy(sentence.expect("a sentence")).into_owned();
            assert_eq!(said.trim_end(), "stream: OK");
        }
        Ok(Outcome::Found { names }) => {
            assert!(names.len() == 1 && !names[0].is_empty());
            text(&names[0]);
        }
        Ok(Outcome::OverBudget { reason } | Outcome::Encrypted { reason }) => text(&reason),
        Ok(other) => panic!("clamd cannot say {other:?}"),
        Err(reason) => assert!(!reason.chars().any(char::is_control), "{reason:?}"),
    }
    if let Ok((engine, signatures)) = version(bytes) {
        text(&engine);
        text(&signatures);
        assert!(sentence.expect("a sentence").starts_with(b"ClamAV"));
    }
}
