//! Archives and compressed streams in a piece.

use std::{borrow::Cow, collections::HashSet, ops::ControlFlow};

use flate2::Crc;
use gantry_protocol::text::private;

use super::{
    Kind, Remark,
    inflate::{End, Inflated, gunzip, inflate},
    walker::{Walker, joined},
    zip::{self, Covered, Header, Local},
};

/// How gzip members with deflate start (RFC 1952, 2.3.1).
const GZIP: &[u8] = b"\x1f\x8b\x08";

/// Whether there is anything in the bytes for [`Walker::archives`].
pub(super) fn is_in(bytes: &[u8]) -> bool {
    bytes.starts_with(GZIP) || zip::is_in(bytes)
}

/// What is known beforehand of an entry's content.
#[derive(Clone, Copy, Default)]
struct Expected {
    /// CRC-32 values that its headers give; one of them must fit, if there are any.
    sums: [Option<u32>; 2],
    /// It is tried on mere suspicion, so that damage is not worth a word.
    suspicion: bool,
}

impl Expected {
    fn fits(self, bytes: &[u8]) -> bool {
        let mut crc = Crc::new();
        crc.update(bytes);
        let mut sums = self.sums.into_iter().flatten().peekable();
        sums.peek().is_none() || sums.any(|sum| sum == crc.sum())
    }
}

/// An archive that is being read.
struct Archive<'a> {
    path: &'a str,
    bytes: &'a [u8],
    depth: u16,
    /// Bytes that it may still give.
    growth_left: u64,
    covered: Covered,
}

impl Walker<'_> {
    /// Unpacks what is an archive or has one in it.
    pub(super) fn archives(&mut self, path: &str, bytes: &[u8], depth: u16) -> ControlFlow<()> {
        if !is_in(bytes) || !self.may_enter(path, depth) {
            return ControlFlow::Continue(());
        }
        let growth_left = self.budget.growth(bytes.len());
        let covered = Covered::default();
        let mut archive = Archive { path, bytes, depth, growth_left, covered };
        if bytes.starts_with(GZIP) {
            let name = joined(path, "gunzipped");
            self.entry()?;
            let bytes_max = self.room(&archive);
            let inflated = gunzip(bytes, bytes_max, &|| self.budget.out_of_time());
            self.show_inflated(&mut archive, &name, inflated, Expected::default())?;
        }
        self.zip(&mut archive)
    }

    /// Entries that a central directory lists come first, then local headers that none of them mentions.
    fn zip(&mut self, archive: &mut Archive<'_>) -> ControlFlow<()> {
        let found = zip::find(archive.bytes);
        if found.more {
            let text = format!("{}: more zip entries than are looked for", archive.path);
            self.remark(Remark::OverBudget(text));
        }
        let mut seen: HashSet<(usize, Header)> = HashSet::new();
        let mut mentioned = HashSet::new();
        let mut has_directory = false;
        for end in found.ends.into_iter().rev() {
            if archive.covered.contains(end) {
                continue;
            }
            let Some(listed) = zip::directory(archive.bytes, end) else { continue };
            has_directory = true;
            for (at, header) in listed {
                let Some(local) = zip::local(archive.bytes, at) else {
                    let name = joined(archive.path, &header.name);
                    let text = format!("{}: the zip directory points to no entry", private(&name));
                    self.remark(Remark::Malformed(text));
                    continue;
                };
                mentioned.insert(at);
                if seen.insert((at, header.clone())) {
                    self.zip_entry(archive, &local, Some(&header))?;
                }
            }
        }
        for at in found.locals {
            if mentioned.contains(&at) || archive.covered.contains(at) {
                continue;
            }
            if !has_directory {
                has_directory = true;
                let text = format!("{}: a zip without its directory", private(archive.path));
                self.remark(Remark::Malformed(text));
            }
            if let Some(local) = zip::local(archive.bytes, at) {
                self.zip_entry(archive, &local, None)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Reads an entry in each way that its two headers, which may differ, allow.
    fn zip_entry(
        &mut self,
        archive: &mut Archive<'_>,
        local: &Local,
        listed: Option<&Header>,
    ) -> ControlFlow<()> {
        self.entry()?;
        let header = &local.header;
        let listed = listed.unwrap_or(header);
        let name = joined(archive.path, &header.name);
        let lengths = [header.length, listed.length];
        let said = lengths.into_iter().flatten().max();
        let encrypted = header.encrypted || listed.encrypted;
        if encrypted {
            self.remark(Remark::Encrypted(format!("{}: encrypted", private(&name))));
            if header.encrypted && listed.encrypted {
                return ControlFlow::Continue(());
            }
        }
        let expected = Expected { sums: [header.sum, listed.sum], suspicion: encrypted };
        let mut methods = vec![header.method];
        if listed.method != header.method {
            methods.push(listed.method);
            let text = format!("{}: its two zip headers name different methods", private(&name));
            self.remark(Remark::Malformed(text));
        }
        for method in methods {
            match method {
                zip::STORED => {
                    let length = said.unwrap_or_else(|| {
                        zip::next_record(archive.bytes, local.data) - local.data
                    });
                    self.stored(archive, &name, local.data, length, expected)?;
                }
                zip::DEFLATED => {
                    let input = archive.bytes.get(local.data..).unwrap_or_default();
                    let bytes_max = self.room(archive);
                    let inflated = inflate(input, bytes_max, &|| self.budget.out_of_time());
                    archive.covered.add(local.data..local.data + inflated.used);
                    self.show_inflated(archive, &name, inflated, expected)?;
                }
                other => {
                    let text = format!("{}: zip method {other} is not known here", private(&name));
                    self.remark(Remark::Unknown(text));
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn stored(
        &mut self,
        archive: &mut Archive<'_>,
        name: &str,
        data: usize,
        length: usize,
        expected: Expected,
    ) -> ControlFlow<()> {
        let rest = archive.bytes.get(data..).unwrap_or_default();
        let bytes = rest.get(..length).unwrap_or(rest);
        let shown = bytes.get(..self.room(archive)).unwrap_or(bytes);
        archive.covered.add(data..data + shown.len());
        let end = if shown.len() < bytes.len() {
            End::Full
        } else if bytes.len() < length {
            End::Damaged
        } else {
            End::Complete
        };
        let inflated = Inflated { bytes: shown.to_vec(), used: shown.len(), end };
        self.show_inflated(archive, name, inflated, expected)
    }

    /// The most that may be made of the next entry.
    fn room(&self, archive: &Archive<'_>) -> usize {
        let growth = usize::try_from(archive.growth_left).unwrap_or(usize::MAX);
        self.budget.bytes_left().min(growth)
    }

    /// Shows what came out of an archive and says why it is not all.
    fn show_inflated(
        &mut self,
        archive: &mut Archive<'_>,
        name: &str,
        inflated: Inflated,
        expected: Expected,
    ) -> ControlFlow<()> {
        let Inflated { bytes, end, .. } = inflated;
        archive.growth_left = archive.growth_left.saturating_sub(bytes.len() as u64);
        let used_up = end == End::Full && bytes.len() >= self.budget.bytes_left();
        let whole = end == End::Complete && expected.fits(&bytes);
        self.show(name, &bytes, Kind::Entry, whole)?;
        match end {
            End::Complete | End::Damaged if !whole && !expected.suspicion => {
                self.remark(Remark::Malformed(format!("{}: damaged", private(name))));
            }
            End::Complete | End::Damaged => {}
            End::Full if used_up => return self.out_of_bytes(name),
            End::Full => {
                let text = format!("{}: the archive grows too much", private(name));
                self.remark(Remark::OverBudget(text));
            }
            End::Late => return self.out_of_time(name),
        }
        self.later(name, Cow::Owned(bytes), archive.depth + 1);
        ControlFlow::Continue(())
    }
}
