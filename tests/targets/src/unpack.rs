//! Everything that a message contains, under one budget.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use gantry_scanners::unpack::{Kind, Limits, REMARKS_MAX, unpack};

/// Far more than the budget needs on a slow machine: beyond it, something takes time that the budget does not see.
const TIME_MAX: Duration = Duration::from_secs(20);

/// The first four bytes are the budget; behind them is a message, or what lies in a message.
pub(super) fn unpack_anything(bytes: &[u8]) {
    let [kilobytes, depth, entries, wrapped, message @ ..] = bytes else { return };
    let limits = Limits {
        bytes_max: u64::from(*kilobytes) * 1_024,
        ratio_max: 50,
        entries_max: u32::from(*entries),
        depth_max: u16::from(depth % 16),
        time_max: Duration::from_secs(2),
    };
    if wrapped % 2 == 0 {
        return within(message, &limits);
    }
    // An archive needs a header above it to be an attachment, which a fuzzer would lose again and again.
    let header =
        b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: 8bit\r\n\r\n";
    within(&[header, message].concat(), &limits);
}

fn within(message: &[u8], limits: &Limits) {
    let began = Instant::now();
    let (mut shown, mut pieces) = (0, 0);
    let report = unpack(message, limits, &mut |piece| {
        assert!(!piece.bytes.is_empty());
        assert!(!piece.path.chars().any(char::is_control) && piece.path.len() <= 2 * 1_024);
        assert_eq!(piece.kind == Kind::Message, pieces == 0, "the message comes first and once");
        if pieces > 0 {
            shown += piece.bytes.len() as u64;
        }
        pieces += 1;
        ControlFlow::Continue(())
    });
    assert!(began.elapsed() < TIME_MAX, "it took {:?}", began.elapsed());
    assert_eq!((report.bytes, report.pieces), (shown, pieces));
    assert!(shown <= limits.bytes_max);
    assert!(report.remarks.len() <= REMARKS_MAX + 4);
    assert!(!report.stopped);
}
