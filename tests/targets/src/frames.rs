//! The four languages of a link.

use std::fmt::Debug;

use gantry_protocol::frame::{
    FRAME_HEADER_BYTES, Frame, FrameHeader, HostControl, HostReservation, WorkerControl,
    WorkerReservation, decode, encode,
};

/// The first two bytes choose language and frame; the rest is what it carries.
pub(super) fn frames(bytes: &[u8]) {
    let [language, number, payload @ ..] = bytes else { return };
    match language % 4 {
        0 => drop(frame::<WorkerControl>(*number, payload)),
        1 => drop(frame::<HostControl>(*number, payload)),
        2 => drop(frame::<HostReservation>(*number, payload)),
        _ => drop(frame::<WorkerReservation>(*number, payload)),
    }
    headers::<WorkerControl>(bytes);
    headers::<WorkerReservation>(bytes);
}

/// What can be read is what its sender meant: written again and read again it is the same. Gives the frame.
pub(super) fn frame<F: Frame + Debug + PartialEq>(number: u8, payload: &[u8]) -> Option<F> {
    let number = F::NUMBERS[usize::from(number) % F::NUMBERS.len()];
    if payload.len() > F::BYTES_MAX {
        return None;
    }
    let frame: F = decode(FrameHeader { number, length: payload.len() }, payload).ok()?;
    let written = encode(&frame).expect("what fitted fits again");
    let (head, payload) = written.split_at(FRAME_HEADER_BYTES);
    let header = FrameHeader::read::<F>(head.try_into().unwrap()).expect("our own header");
    assert_eq!(header, FrameHeader { number, length: payload.len() });
    let again: F = decode(header, payload).expect("our own frame");
    assert_eq!(frame, again);
    assert_eq!(encode(&again).unwrap(), written);
    Some(frame)
}

/// No header asks for more memory than its language allows.
fn headers<F: Frame>(bytes: &[u8]) {
    let Some(head) = bytes.first_chunk() else { return };
    if let Ok(header) = FrameHeader::read::<F>(*head) {
        assert!(header.length <= F::BYTES_MAX && F::NUMBERS.contains(&header.number));
    }
}
