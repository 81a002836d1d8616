//! A table whose values are taken one by one, each with its place in the file.

use std::cell::Cell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::document::Ledger;
use crate::text;
use crate::value::{Value, shown};

/// A table whose keys are asked for by name.
pub struct Table<'d> {
    ledger: &'d Ledger<'d>,
    entries: &'d DeTable<'d>,
    /// What mistakes in it are called, such as `mailbox "mail.box"`; empty for the top.
    place: String,
    offset: usize,
    /// What [`Table::allow`] was given.
    keys: Cell<&'static [&'static str]>,
}

impl<'d> Table<'d> {
    pub(crate) fn new(
        ledger: &'d Ledger<'d>,
        entries: &'d DeTable<'d>,
        place: String,
        offset: usize,
    ) -> Self {
        Self { ledger, entries, place, offset, keys: Cell::new(&[]) }
    }

    /// Says which keys there are, all of them; the others in the file are reported.
    pub fn allow(&self, keys: &'static [&'static str]) {
        self.keys.set(keys);
        for (key, value) in self.entries {
            let name: &str = key.get_ref();
            if keys.contains(&name) {
                continue;
            }
            let remedy = match text::closest(name, keys.iter().copied()) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => format!("remove it; the keys here are {}", keys.join(", ")),
            };
            // A table's own span may lie in the middle of its entries; the key is where it was written.
            let offset = key.span().start.min(value.span().start);
            // Quoted keys can hold anything, and what is printed should stay one line.
            let place = self.key(&shown(name).escape_debug().to_string());
            self.ledger.report(offset, &place, "there is no such key", remedy);
        }
    }

    /// The value of a key, if the file has it.
    pub fn value(&self, key: &'static str) -> Option<Value<'d>> {
        debug_assert!(
            self.keys.get().is_empty() || self.keys.get().contains(&key),
            "{key} is read but not allowed"
        );
        let (name, value) = self.entries.get_key_value(key)?;
        Some(Value::new(self.ledger, self.key(key), value.get_ref(), name.span().start))
    }

    /// The value of a key that the file must have; `remedy` explains what to write.
    pub fn required(&self, key: &'static str, remedy: &str) -> Option<Value<'d>> {
        let value = self.value(key);
        if value.is_none() {
            self.ledger.report(self.offset, &self.key(key), "it is missing", remedy);
        }
        value
    }

    /// The value of a key as `read` takes it, or `default` if the file has none or a wrong one (which is reported).
    pub fn or<T>(
        &self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&Value<'d>) -> Option<T>,
    ) -> T {
        self.value(key).and_then(|value| read(&value)).unwrap_or(default)
    }

    /// The folder that the file lies in, absolute.
    pub fn folder(&self) -> PathBuf {
        self.ledger.folder().to_owned()
    }

    /// Whether the file has the key.
    pub fn has(&self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    /// Reports the key if the file has it.
    pub fn refuse(&self, key: &'static str, problem: &str, remedy: &str) {
        if let Some(value) = self.value(key) {
            value.wrong(problem, remedy);
        }
    }

    /// Reports a mistake in the table as a whole, or in the value of `key` if the file has it.
    pub fn wrong(&self, key: &'static str, problem: impl Display, remedy: impl Display) {
        match self.value(key) {
            Some(value) => value.wrong(problem, remedy),
            None => self.ledger.report(self.offset, &self.key(key), problem, remedy),
        }
    }

    /// The tables of `[[key]]`, named by their `name` or else counted. How many there may be is `count`.
    pub fn tables(&self, key: &'static str, count: RangeInclusive<usize>) -> Vec<Table<'d>> {
        let none = || self.wrong(key, "there is none", format!("write at least one [[{key}]]"));
        let Some(value) = self.value(key) else {
            if !count.contains(&0) {
                none();
            }
            return Vec::new();
        };
        let remedy = format!("write [[{key}]] above its keys");
        let Some(items) = value.items(remedy) else { return Vec::new() };
        if items.len() > *count.end() {
            let remedy = format!("write at most {}", count.end());
            value.wrong(format!("there are {}", items.len()), remedy);
        } else if !count.contains(&items.len()) {
            none();
        }
        let table = |(index, item): (usize, &'d Spanned<DeValue<'d>>)| {
            let entries = item.get_ref().as_table();
            let name = entries
                .and_then(|entries| entries.get("name"))
                .and_then(|name| name.get_ref().as_str())
                .map_or_else(|| (index + 1).to_string(), |name| format!("{:?}", shown(name)));
            let place = self.key(&format!("{key} {name}"));
            Value::new(self.ledger, place, item.get_ref(), item.span().start).table()
        };
        items.iter().enumerate().take(*count.end()).filter_map(table).collect()
    }

    fn key(&self, key: &str) -> String {
        match self.place.is_empty() {
            true => key.to_owned(),
            false => format!("{}: {key}", self.place),
        }
    }
}
