//! The walk through a message's parts, and the decoders.

use gantry_mime::{
    DEPTH_LIMIT, Limits, Parts, READINGS_MAX, Reading, Walk, base64, looks_like_message,
    quoted_printable, uuencode,
};

/// The first two bytes are the limits.
pub(super) fn walk(bytes: &[u8]) {
    let [depth, parts, message @ ..] = bytes else { return };
    let limits = Limits { depth_max: u16::from(*depth) * 2, parts_max: u32::from(*parts) };
    let mut walk = Parts::of_message(message, limits);
    let mut given = 0;
    for part in walk.by_ref() {
        given += 1;
        assert!(part.depth <= limits.depth_max.min(DEPTH_LIMIT));
        assert!(part.header.start <= part.header.end && part.header.end <= part.body.start);
        assert!(part.body.start <= part.body.end && part.body.end <= message.len());
        assert!(!part.encodings.is_empty());
        let body = &message[part.body];
        decoders(body);
        if let Some(boundary) = part.boundary {
            let inner = Parts::of_multipart(body, boundary, limits).count();
            assert!(inner <= limits.parts_max as usize);
        }
    }
    assert!(given <= limits.parts_max);
    assert!(walk.readings() <= READINGS_MAX);
    let strict: usize = Walk::message(message, Reading::STRICT, limits)
        .filter(|part| part.kind == gantry_mime::Kind::Leaf)
        .map(|part| part.body.len())
        .sum();
    assert!(strict <= message.len(), "one reading gives no byte twice");
    looks_like_message(message);
}

/// They make no more than they are told to, and the start of what they would make.
fn decoders(body: &[u8]) {
    for decode in [base64, quoted_printable] {
        let whole = decode(body, usize::MAX);
        assert!(whole.whole && whole.bytes.len() <= body.len() + 3);
        let half = whole.bytes.len() / 2;
        let cut = decode(body, half);
        assert_eq!(cut.bytes, whole.bytes[..half]);
        assert_eq!(cut.whole, half == whole.bytes.len());
    }
    let mut from = 0;
    while let Some(block) = uuencode(body, from, 100) {
        assert!(block.bytes.len() <= 100);
        assert!(from <= block.range.start && block.range.start < block.range.end);
        assert!(block.range.end <= body.len());
        from = block.range.end;
    }
}
