//! Goes through a message and what is in it, level by level, with a list of what is still to be looked into.

use std::{borrow::Cow, collections::VecDeque, ops::ControlFlow};

use gantry_mime::{
    Decoded, Encoding, Part, Parts, base64, looks_like_message, quoted_printable, uuencode,
};

use gantry_protocol::text::private;

use super::{Kind, Limits, Piece, REMARKS_MAX, Remark, Report, archive, budget::Budget};

/// Length of a path in bytes; the sender makes the names in it.
const PATH_BYTES_MAX: usize = 1024;

/// Something that has been shown and has more inside.
struct Work {
    path: String,
    bytes: Vec<u8>,
    depth: u16,
    what: What,
}

#[derive(Clone)]
enum What {
    Content,
    Message,
    /// A multipart's decoded body, with its boundary.
    Multipart(Vec<u8>),
}

/// One run over one message. `Break` from any method ends the run: the budget is used up or the visitor has seen
/// enough, and which of the two is in the report.
pub(super) struct Walker<'v> {
    pub(super) budget: Budget,
    visit: &'v mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    report: Report,
    waiting: VecDeque<Work>,
}

impl<'v> Walker<'v> {
    pub(super) fn new(
        limits: &Limits,
        visit: &'v mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Self {
        let budget = Budget::new(limits);
        Self { budget, visit, report: Report::default(), waiting: VecDeque::new() }
    }

    pub(super) fn run(mut self, message: &[u8]) -> Report {
        // A break has left its reason in the report.
        let _ = self.walk(message);
        self.report.bytes = self.budget.bytes();
        self.report
    }

    fn walk(&mut self, message: &[u8]) -> ControlFlow<()> {
        if !message.is_empty() {
            self.visit(Piece { path: "", bytes: message, kind: Kind::Message, whole: true })?;
        }
        self.message("", message, 0, None)?;
        while let Some(work) = self.waiting.pop_front() {
            match work.what {
                What::Content => self.look_inside(&work.path, &work.bytes, work.depth)?,
                What::Message => self.message(&work.path, &work.bytes, work.depth, None)?,
                What::Multipart(boundary) => {
                    self.message(&work.path, &work.bytes, work.depth, Some(boundary))?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn message(
        &mut self,
        path: &str,
        bytes: &[u8],
        depth: u16,
        boundary: Option<Vec<u8>>,
    ) -> ControlFlow<()> {
        let limits = gantry_mime::Limits {
            depth_max: self.budget.levels_left(depth),
            parts_max: self.budget.entries_left(),
        };
        let mut parts = match boundary {
            Some(boundary) => Parts::of_multipart(bytes, boundary, limits),
            None => Parts::of_message(bytes, limits),
        };
        for part in parts.by_ref() {
            self.entry()?;
            let mut path = joined(path, &part.path);
            if let Some(name) = &part.file_name {
                path = joined(&path, name);
            }
            let body = bytes.get(part.body.clone()).unwrap_or_default();
            self.part(&path, body, depth.saturating_add(part.depth), part)?;
        }
        let readings = u32::try_from(parts.readings()).unwrap_or(u32::MAX);
        self.report.readings = self.report.readings.max(readings);
        if parts.too_many() { self.out_of_entries() } else { ControlFlow::Continue(()) }
    }

    /// Shows a part in every way it may be encoded. What is inside comes after all parts, so that a bomb in one
    /// does not use up what another needs.
    fn part(&mut self, path: &str, body: &[u8], depth: u16, part: Part) -> ControlFlow<()> {
        use gantry_mime::Kind as Mime;

        if part.too_deep {
            self.too_deep(path);
        }
        let (kind, container) = match part.kind {
            Mime::Leaf => (Kind::Part, None),
            Mime::Preamble => (Kind::Preamble, None),
            Mime::Epilogue => (Kind::Epilogue, None),
            Mime::Message => (Kind::Part, Some(What::Message)),
            Mime::Multipart => {
                (Kind::Part, Some(What::Multipart(part.boundary.unwrap_or_default())))
            }
        };
        // Encoded containers break RFC 2045, 6.4, and some readers decode them.
        if let Some(what) = container {
            for encoding in part.encodings {
                let Some(decoded) = self.decode(body, encoding) else { continue };
                self.show_decoded(path, &decoded, kind)?;
                if self.may_enter(path, depth) {
                    let (path, what) = (path.to_owned(), what.clone());
                    let bytes = decoded.bytes;
                    self.waiting.push_back(Work { path, bytes, depth: depth + 1, what });
                }
            }
            return ControlFlow::Continue(());
        }
        let raw = part.encodings.contains(&Encoding::Identity);
        let mut doubtful = false;
        for encoding in part.encodings {
            let Some(decoded) = self.decode(body, encoding) else { continue };
            doubtful |= decoded.doubtful;
            self.show_decoded(path, &decoded, kind)?;
            self.later(path, Cow::Owned(decoded.bytes), depth);
        }
        if raw || doubtful {
            let kind = if raw { kind } else { Kind::Undecoded };
            self.show(path, body, kind, true)?;
            self.later(path, Cow::Borrowed(body), depth);
        }
        ControlFlow::Continue(())
    }

    /// None where there is nothing to decode.
    fn decode(&self, body: &[u8], encoding: Encoding) -> Option<Decoded> {
        match encoding {
            Encoding::Identity => None,
            Encoding::Base64 => Some(base64(body, self.budget.bytes_left())),
            Encoding::QuotedPrintable => Some(quoted_printable(body, self.budget.bytes_left())),
        }
    }

    fn show_decoded(&mut self, path: &str, decoded: &Decoded, kind: Kind) -> ControlFlow<()> {
        self.show(path, &decoded.bytes, kind, decoded.whole)?;
        if decoded.whole { ControlFlow::Continue(()) } else { self.out_of_bytes(path) }
    }

    /// Looks for whatever may be in a piece, whatever it says it is.
    fn look_inside(&mut self, path: &str, bytes: &[u8], depth: u16) -> ControlFlow<()> {
        let mut from = 0;
        while let Some(block) = uuencode(bytes, from, self.budget.bytes_left()) {
            if !self.may_enter(path, depth) {
                break;
            }
            self.entry()?;
            from = block.range.end;
            let path = joined(path, &block.name);
            let used_up = block.bytes.len() >= self.budget.bytes_left();
            self.show(&path, &block.bytes, Kind::Uuencoded, block.whole)?;
            if used_up && !block.whole {
                return self.out_of_bytes(&path);
            }
            self.later(&path, Cow::Owned(block.bytes), depth + 1);
        }
        self.archives(path, bytes, depth)?;
        if looks_like_message(bytes) && self.may_enter(path, depth) {
            let (path, bytes, depth) = (path.to_owned(), bytes.to_vec(), depth + 1);
            self.waiting.push_back(Work { path, bytes, depth, what: What::Message });
        }
        ControlFlow::Continue(())
    }

    /// Keeps bytes that have something in them until their turn comes. They have been shown, so the budget bounds
    /// what is kept.
    pub(super) fn later(&mut self, path: &str, bytes: Cow<'_, [u8]>, depth: u16) {
        if archive::is_in(&bytes) || looks_like_message(&bytes) || uuencode(&bytes, 0, 0).is_some()
        {
            let (path, bytes) = (path.to_owned(), bytes.into_owned());
            self.waiting.push_back(Work { path, bytes, depth, what: What::Content });
        }
    }

    /// Shows a piece as far as the budget goes.
    pub(super) fn show(
        &mut self,
        path: &str,
        bytes: &[u8],
        kind: Kind,
        whole: bool,
    ) -> ControlFlow<()> {
        if self.budget.out_of_time() {
            return self.out_of_time(path);
        }
        let shown = bytes.get(..self.budget.bytes_left()).unwrap_or(bytes);
        let all = shown.len() == bytes.len();
        self.budget.spend(shown.len());
        if !shown.is_empty() {
            self.visit(Piece { path, bytes: shown, kind, whole: whole && all })?;
        }
        if all { ControlFlow::Continue(()) } else { self.out_of_bytes(path) }
    }

    fn visit(&mut self, piece: Piece<'_>) -> ControlFlow<()> {
        self.report.pieces += 1;
        let flow = (self.visit)(piece);
        self.report.stopped |= flow.is_break();
        flow
    }

    /// Counts a part or entry.
    pub(super) fn entry(&mut self) -> ControlFlow<()> {
        if self.budget.take_entry() { ControlFlow::Continue(()) } else { self.out_of_entries() }
    }

    /// Whether something inside what lies at `depth` may be entered; says so if not.
    pub(super) fn may_enter(&mut self, path: &str, depth: u16) -> bool {
        let may = self.budget.levels_left(depth) > 0;
        if !may {
            self.too_deep(path);
        }
        may
    }

    fn too_deep(&mut self, path: &str) {
        self.remark(Remark::OverBudget(format!("{}: nested too deep", private(path))));
    }

    fn out_of_entries(&mut self) -> ControlFlow<()> {
        self.remark(Remark::OverBudget("too many parts and entries".to_owned()));
        ControlFlow::Break(())
    }

    pub(super) fn out_of_bytes(&mut self, path: &str) -> ControlFlow<()> {
        self.remark(Remark::OverBudget(format!("{}: too many bytes", private(path))));
        ControlFlow::Break(())
    }

    pub(super) fn out_of_time(&mut self, path: &str) -> ControlFlow<()> {
        self.remark(Remark::OverBudget(format!("{}: out of time", private(path))));
        ControlFlow::Break(())
    }

    /// Keeps a remark, if there is room or it is the first of its kind.
    pub(super) fn remark(&mut self, remark: Remark) {
        let remarks = &mut self.report.remarks;
        if remarks.contains(&remark) {
            return;
        }
        let kind = std::mem::discriminant(&remark);
        let is_new = remarks.iter().all(|kept| std::mem::discriminant(kept) != kind);
        if remarks.len() < REMARKS_MAX || is_new {
            remarks.push(remark);
        } else {
            self.report.remarks_dropped = self.report.remarks_dropped.saturating_add(1);
        }
    }
}

/// A path with one more step. Names come from outside: control characters go, and the length is bounded.
pub(super) fn joined(path: &str, step: &str) -> String {
    let mut joined = path.to_owned();
    if !path.is_empty() && !step.is_empty() {
        joined.push('/');
    }
    for character in step.chars() {
        if joined.len() + character.len_utf8() > PATH_BYTES_MAX {
            break;
        }
        joined.push(if character.is_control() { '?' } else { character });
    }
    joined
}
