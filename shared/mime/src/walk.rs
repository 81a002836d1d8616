//! One pass over a message in one reading.
//!
//! The walk goes from line to line and keeps the containers that are open (multiparts and nested messages) on a
//! list, so that no nesting deepens the machine's stack. A boundary of any open container ends what is inside it.

use std::{collections::VecDeque, ops::Range};

use crate::{
    Encoding, Reading,
    header::{Fields, LineKind, line_kind},
    slice,
};

/// The most that [`Limits::depth_max`] can be: every line that starts like a boundary is compared with those of all
/// open containers, so depth is time.
pub const DEPTH_LIMIT: u16 = 256;

/// What a walk may give.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Containers within one another; at most [`DEPTH_LIMIT`].
    pub depth_max: u16,
    /// Parts given.
    pub parts_max: u32,
}

/// What a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Content.
    Leaf,
    /// What stands in a multipart before its first boundary; given only if it is more than white space.
    Preamble,
    /// What stands after a multipart's closing boundary; given only if it is more than white space.
    Epilogue,
    /// A multipart as a whole, given after its parts.
    Multipart,
    /// A nested message as a whole, given after its parts. Its body is the message, header block included.
    Message,
}

/// A part of a message. Ranges are offsets into the bytes that were walked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is.
    pub kind: Kind,
    /// Containers around it.
    pub depth: u16,
    /// Part numbers from the outermost inwards, such as `2/1`, with `/preamble` or `/epilogue` for those. Empty for
    /// an outermost multipart.
    pub path: String,
    /// Its header block, the empty line included.
    pub header: Range<usize>,
    /// Its content as it stands there, without the line end before the boundary (RFC 2046, 5.1.1).
    pub body: Range<usize>,
    /// Type and subtype in lower case, without parameters; empty if there is no such field.
    pub content_type: String,
    /// How the body may have been encoded; several if readers could disagree, never none.
    pub encodings: Vec<Encoding>,
    /// The file name the sender gave, decoded from RFC 2231 but not otherwise.
    pub file_name: Option<String>,
    /// The boundary of a multipart.
    pub boundary: Option<Vec<u8>>,
    /// This is a container that was not entered, because it lies too deep. Its body has everything in it.
    pub too_deep: bool,
}

/// What is known of an entity once its header block has been read.
#[derive(Clone, Debug)]
struct Entity {
    header: Range<usize>,
    body_start: usize,
    path: String,
    content_type: String,
    encodings: Vec<Encoding>,
    file_name: Option<String>,
    boundary: Option<Vec<u8>>,
    is_message: bool,
}

/// A container whose end has not been seen.
#[derive(Debug)]
struct Open {
    entity: Entity,
    kind: Kind,
    /// Parts begun in it.
    parts: u32,
    /// Its closing boundary has been seen. It is kept, as some readers go on when a boundary comes again.
    closed: bool,
}

/// The content that the walk is in.
#[derive(Debug)]
struct Content {
    kind: Kind,
    entity: Entity,
    start: usize,
    too_deep: bool,
}

/// A line: where it starts, where its text ends, where the next one starts.
#[derive(Clone, Copy, Debug)]
struct Line {
    start: usize,
    end: usize,
    next: usize,
}

/// The parts of a message in one [`Reading`], as an iterator.
#[derive(Debug)]
pub struct Walk<'a> {
    bytes: &'a [u8],
    reading: Reading,
    limits: Limits,
    at: usize,
    open: Vec<Open>,
    content: Option<Content>,
    ready: VecDeque<Part>,
    given: u32,
    points: Reading,
    too_many: bool,
}

impl<'a> Walk<'a> {
    /// Walks a message, from its header block on.
    pub fn message(bytes: &'a [u8], reading: Reading, limits: Limits) -> Self {
        let mut walk = Self::new(bytes, reading, limits);
        walk.begin(0, String::new(), false, true);
        walk
    }

    /// Walks the decoded body of a multipart, whose header block is elsewhere.
    pub fn multipart(bytes: &'a [u8], boundary: Vec<u8>, reading: Reading, limits: Limits) -> Self {
        let mut walk = Self::new(bytes, reading, limits);
        let entity = Entity {
            header: 0..0,
            body_start: 0,
            path: String::new(),
            content_type: String::from("multipart/mixed"),
            encodings: vec![Encoding::Identity],
            file_name: None,
            boundary: Some(boundary),
            is_message: false,
        };
        walk.enter(entity, Kind::Multipart);
        walk
    }

    fn new(bytes: &'a [u8], reading: Reading, limits: Limits) -> Self {
        let limits = Limits { depth_max: limits.depth_max.min(DEPTH_LIMIT), ..limits };
        let mut points = Reading::STRICT;
        let mut returns = memchr::memchr_iter(b'\r', bytes);
        if returns.any(|at| bytes.get(at + 1).is_none_or(|next| *next != b'\n')) {
            points.add(Reading::BARE_CR);
        }
        Self {
            bytes,
            reading,
            limits,
            at: 0,
            open: Vec::new(),
            content: None,
            ready: VecDeque::new(),
            given: 0,
            points,
            too_many: false,
        }
    }

    /// Points on which readers could disagree about what has been walked so far.
    pub fn points(&self) -> Reading {
        self.points
    }

    /// Whether the walk broke off at [`Limits::parts_max`].
    pub fn too_many(&self) -> bool {
        self.too_many
    }

    fn line(&self, start: usize) -> Option<Line> {
        let rest = self.bytes.get(start..).filter(|rest| !rest.is_empty())?;
        let found = if self.reading.has(Reading::BARE_CR) {
            memchr::memchr2(b'\r', b'\n', rest)
        } else {
            memchr::memchr(b'\n', rest)
        };
        let length = found.unwrap_or(rest.len());
        let mut next = start + length + usize::from(found.is_some());
        if self.bytes.get(next - 1) == Some(&b'\r') && self.bytes.get(next) == Some(&b'\n') {
            next += usize::from(found.is_some());
        }
        let text = slice(rest, 0..length);
        let end = text.iter().rposition(|byte| *byte != b'\r').map_or(0, |last| last + 1);
        Some(Line { start, end: start + end, next })
    }

    fn text(&self, line: Line) -> &'a [u8] {
        slice(self.bytes, line.start..line.end)
    }

    /// Reads the header block at `at` and enters the entity: containers as deep as allowed, then content.
    fn begin(&mut self, at: usize, path: String, digest: bool, message: bool) {
        let mut entity = self.header(at, path, digest, message);
        loop {
            let too_deep = self.open.len() >= usize::from(self.limits.depth_max);
            if entity.boundary.is_some() && !too_deep {
                return self.enter(entity, Kind::Multipart);
            }
            if !entity.is_message || too_deep {
                let too_deep = too_deep && (entity.is_message || entity.boundary.is_some());
                if entity.path.is_empty() || self.is_message_body() {
                    entity.path = joined(&entity.path, "1");
                }
                let start = entity.body_start;
                self.content = Some(Content { kind: Kind::Leaf, entity, start, too_deep });
                return;
            }
            let (start, path) = (entity.body_start, entity.path.clone());
            self.open.push(Open { entity, kind: Kind::Message, parts: 0, closed: false });
            entity = self.header(start, path, false, true);
        }
    }

    fn is_message_body(&self) -> bool {
        self.open.last().is_some_and(|open| open.kind == Kind::Message)
    }

    fn enter(&mut self, entity: Entity, kind: Kind) {
        let start = entity.body_start;
        let inner = Entity { path: joined(&entity.path, "preamble"), ..plain(start) };
        self.open.push(Open { entity, kind, parts: 0, closed: false });
        self.content =
            Some(Content { kind: Kind::Preamble, entity: inner, start, too_deep: false });
    }

    /// Reads a header block. Leaves `at` where the body starts.
    fn header(&mut self, start: usize, path: String, digest: bool, message: bool) -> Entity {
        let mut fields = Fields::default();
        let mut any = false;
        self.at = start;
        let mut body_start = self.bytes.len().max(start);
        while let Some(line) = self.line(self.at) {
            let text = self.text(line);
            if text.starts_with(b"--") && self.delimiter(text).is_some() {
                body_start = line.start;
                break;
            }
            let kind = line_kind(text);
            match kind {
                LineKind::Field | LineKind::Continuation => any = true,
                LineKind::Blank if !any && message && self.field_follows(line.next) => {
                    self.points.add(Reading::HEADER);
                    if !self.reading.has(Reading::HEADER) {
                        body_start = line.next;
                        break;
                    }
                }
                LineKind::Blank => {
                    body_start = line.next;
                    break;
                }
                LineKind::White => {
                    self.points.add(Reading::HEADER);
                    if self.reading.has(Reading::HEADER) && any {
                        body_start = line.next;
                        break;
                    }
                }
                // Mailbox files' separators are passed over by everybody.
                LineKind::Other if !any && is_mailbox_separator(text) => {}
                LineKind::Other => {
                    self.points.add(Reading::HEADER);
                    if !self.reading.has(Reading::HEADER) {
                        body_start = line.start;
                        break;
                    }
                }
            }
            fields.push(text, kind);
            self.at = line.next;
        }
        self.at = body_start;
        self.entity(&fields, start..body_start, path, digest)
    }

    fn field_follows(&self, at: usize) -> bool {
        self.line(at).is_some_and(|line| {
            matches!(line_kind(self.text(line)), LineKind::Field | LineKind::Blank)
        })
    }

    fn entity(
        &mut self,
        fields: &Fields,
        header: Range<usize>,
        path: String,
        digest: bool,
    ) -> Entity {
        let types = fields.types();
        let last = self.reading.has(Reading::LAST);
        if types.len() > 1 {
            self.points.add(Reading::LAST);
        }
        let chosen = if last { types.last() } else { types.first() };
        let content_type = chosen.map_or(String::new(), |value| value.main.clone());
        let mut boundaries = chosen.map_or(Vec::new(), |value| value.candidates("boundary"));
        if boundaries.len() > 1 {
            self.points.add(Reading::LAST);
        }
        let is_multipart = content_type.starts_with("multipart");
        if !is_multipart && !boundaries.is_empty() {
            self.points.add(Reading::UNDECLARED);
            if !self.reading.has(Reading::UNDECLARED) {
                boundaries.clear();
            }
        }
        let mut boundary = if last { boundaries.pop() } else { boundaries.into_iter().next() };
        // Lines are compared without the white space at their end, and a boundary cannot end with any.
        if let Some(boundary) = &mut boundary {
            boundary.truncate(boundary.trim_ascii_end().len());
        }
        let is_message = matches!(
            content_type.as_str(),
            "message/rfc822" | "message/global" | "message/news" | "message/partial"
        ) || digest && content_type.is_empty();
        Entity {
            body_start: header.end,
            header,
            path,
            file_name: fields.file_name(&types),
            encodings: fields.encodings(),
            content_type,
            boundary,
            is_message,
        }
    }

    /// The open container that the line, given without its end, is a boundary of, and whether it closes it.
    fn delimiter(&mut self, line: &[u8]) -> Option<(usize, bool)> {
        let line = line.strip_prefix(b"--")?.trim_ascii_end();
        let by_prefix = |open: &Open| {
            open.entity.boundary.as_deref().and_then(|boundary| line.strip_prefix(boundary))
        };
        if self.reading.has(Reading::PREFIX) {
            let found = self.open.iter().enumerate();
            let mut found = found.filter_map(|(index, open)| Some((index, by_prefix(open)?)));
            return found.next().map(|(index, rest)| (index, rest.starts_with(b"--")));
        }
        let closing = line.strip_suffix(b"--");
        let mut exact = None;
        for (index, open) in self.open.iter().enumerate().rev() {
            let Some(boundary) = open.entity.boundary.as_deref() else { continue };
            let closes = closing == Some(boundary);
            if !closes && line != boundary {
                continue;
            }
            if !open.closed {
                exact = Some((index, closes));
                break;
            }
            exact = exact.or(Some((index, closes)));
        }
        if !self.points.has(Reading::PREFIX) {
            let disputed = |(index, open): (usize, &Open)| {
                by_prefix(open).is_some_and(|rest| {
                    !matches!(rest, b"" | b"--") || exact.is_some_and(|(found, _)| found != index)
                })
            };
            if self.open.iter().enumerate().any(disputed) {
                self.points.add(Reading::PREFIX);
            }
        }
        exact
    }

    /// Goes on to the next boundary or the end.
    fn step(&mut self) {
        while let Some(line) = self.line(self.at) {
            let text = self.text(line);
            if text.starts_with(b"--") {
                let found = self.delimiter(text).or_else(|| self.undeclared(text, line.next));
                if let Some((index, closes)) = found {
                    return self.handle_delimiter(index, closes, line);
                }
            }
            self.at = line.next;
        }
        self.end_content(self.bytes.len());
        self.close_down_to(0, self.bytes.len());
    }

    /// Makes the content that we are in a multipart, where a line looks like a boundary that nobody declared.
    fn undeclared(&mut self, text: &[u8], next: usize) -> Option<(usize, bool)> {
        let token = text.strip_prefix(b"--")?.trim_ascii_end();
        let follows = self.line(next).map(|line| self.text(line)).unwrap_or_default();
        let is_field =
            follows.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"content-"));
        if token.is_empty() || !is_field {
            return None;
        }
        self.points.add(Reading::UNDECLARED);
        if !self.reading.has(Reading::UNDECLARED)
            || self.open.len() >= usize::from(self.limits.depth_max)
        {
            return None;
        }
        let content = self.content.take()?;
        let mut entity = content.entity;
        entity.boundary = Some(token.to_vec());
        entity.body_start = content.start;
        self.enter(entity, Kind::Multipart);
        Some((self.open.len() - 1, false))
    }

    fn handle_delimiter(&mut self, index: usize, closes: bool, line: Line) {
        let end = self.before_line_end(line.start);
        self.end_content(end);
        self.close_down_to(index + 1, end);
        self.at = line.next;
        let Some(open) = self.open.last_mut() else { return };
        open.closed = closes;
        if closes {
            let path = joined(&open.entity.path, "epilogue");
            let entity = Entity { path, ..plain(line.next) };
            self.content =
                Some(Content { kind: Kind::Epilogue, entity, start: line.next, too_deep: false });
        } else {
            open.parts += 1;
            let path = joined(&open.entity.path, &open.parts.to_string());
            let digest = open.entity.content_type == "multipart/digest";
            self.begin(line.next, path, digest, false);
        }
    }

    /// The line end before a boundary belongs to the boundary (RFC 2046, 5.1.1).
    fn before_line_end(&self, at: usize) -> usize {
        let before = slice(self.bytes, 0..at);
        let text = before.strip_suffix(b"\n").unwrap_or(before);
        text.strip_suffix(b"\r").unwrap_or(text).len()
    }

    fn end_content(&mut self, end: usize) {
        let Some(content) = self.content.take() else { return };
        let body = content.start..end.max(content.start);
        let is_margin = matches!(content.kind, Kind::Preamble | Kind::Epilogue);
        if is_margin && slice(self.bytes, body.clone()).trim_ascii().is_empty() {
            return;
        }
        let depth = self.open.len();
        self.give(content.kind, depth, content.entity, body, content.too_deep);
    }

    /// Closes the containers beyond the first `keep`.
    fn close_down_to(&mut self, keep: usize, end: usize) {
        while self.open.len() > keep {
            let Some(open) = self.open.pop() else { return };
            let body = open.entity.body_start..end.max(open.entity.body_start);
            let depth = self.open.len();
            self.give(open.kind, depth, open.entity, body, false);
        }
    }

    fn give(
        &mut self,
        kind: Kind,
        depth: usize,
        entity: Entity,
        body: Range<usize>,
        too_deep: bool,
    ) {
        if self.given == self.limits.parts_max {
            self.too_many = true;
            return;
        }
        self.given += 1;
        self.ready.push_back(Part {
            kind,
            depth: u16::try_from(depth).unwrap_or(u16::MAX),
            path: entity.path,
            header: entity.header,
            body,
            content_type: entity.content_type,
            encodings: entity.encodings,
            file_name: entity.file_name,
            boundary: entity.boundary,
            too_deep,
        });
    }
}

impl Iterator for Walk<'_> {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        loop {
            if let Some(part) = self.ready.pop_front() {
                return Some(part);
            }
            if self.too_many || self.content.is_none() {
                return None;
            }
            self.step();
        }
    }
}

/// An entity without a header block.
fn plain(start: usize) -> Entity {
    Entity {
        header: start..start,
        body_start: start,
        path: String::new(),
        content_type: String::new(),
        encodings: vec![Encoding::Identity],
        file_name: None,
        boundary: None,
        is_message: false,
    }
}

fn joined(path: &str, last: &str) -> String {
    if path.is_empty() { last.to_owned() } else { format!("{path}/{last}") }
}

fn is_mailbox_separator(line: &[u8]) -> bool {
    line.starts_with(b"From ") || line.starts_with(b">From ")
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
