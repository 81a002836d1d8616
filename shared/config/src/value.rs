//! A value, its place in the file, and what it can be taken as.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::{DeArray, DeValue};

use crate::document::Ledger;
use crate::net::Endpoint;
use crate::table::Table;
use crate::text;

/// What is shown of a wrong value, in characters.
const SHOWN_CHARS_MAX: usize = 64;

/// A value in the file. Each getter gives `None` only after reporting why.
pub struct Value<'d> {
    ledger: &'d Ledger<'d>,
    place: String,
    value: &'d DeValue<'d>,
    offset: usize,
}

impl<'d> Value<'d> {
    pub(crate) fn new(
        ledger: &'d Ledger<'d>,
        place: String,
        value: &'d DeValue<'d>,
        offset: usize,
    ) -> Self {
        Self { ledger, place, value, offset }
    }

    /// Reports a mistake in it.
    pub fn wrong(&self, problem: impl Display, remedy: impl Display) {
        self.ledger.report(self.offset, &self.place, problem, remedy);
    }

    /// The folder that the file lies in, absolute.
    pub fn folder(&self) -> PathBuf {
        self.ledger.folder().to_owned()
    }

    /// Whether it is this string.
    pub fn says(&self, text: &str) -> bool {
        self.value.as_str() == Some(text)
    }

    /// Whether it is a list, where one thing may also stand by itself.
    pub fn is_list(&self) -> bool {
        self.value.as_array().is_some()
    }

    /// The value as a string that `parse` understands, else a report of what it says and of `remedy`.
    pub fn parsed<T, E: Display>(
        &self,
        parse: impl FnOnce(&str) -> Result<T, E>,
        remedy: impl Display,
    ) -> Option<T> {
        let text = self.string(&remedy)?;
        parse(text)
            .map_err(|problem| self.wrong(format!("{:?}: {problem}", shown(text)), remedy))
            .ok()
    }

    /// A string that is not empty and has no control characters.
    pub fn text(&self, remedy: &str) -> Option<&'d str> {
        let text = self.string(remedy)?;
        if text.is_empty() || text.chars().any(char::is_control) {
            self.wrong("it is empty or has control characters", remedy);
            return None;
        }
        Some(text)
    }

    /// The name of a mailbox or module.
    pub fn name(&self) -> Option<String> {
        self.checked(text::check_name, "a name such as \"mail.box\"")
    }

    /// The name of a host or worker.
    pub fn node_name(&self) -> Option<String> {
        let check = |text: &str| match text {
            "ca" => Err("this is what the files of the certificate authority are called"),
            _ => text::check_name(text),
        };
        self.checked(check, "a name such as \"mx1\"")
    }

    /// A need, or what a module provides.
    pub fn need(&self) -> Option<String> {
        self.checked(text::check_need, "a word such as \"virus\"")
    }

    /// A duration with its unit.
    pub fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let bounds = (text::duration_text(*range.start()), text::duration_text(*range.end()));
        let remedy = format!("write {:?} to {:?}", bounds.0, bounds.1);
        if let DeValue::Integer(number) = self.value {
            self.wrong(
                "a duration has a unit",
                format!("write \"{number}s\" if seconds are meant"),
            );
            return None;
        }
        let parse = |text: &str| {
            text::duration(text).ok_or("a duration is a whole number and ms, s, m, h or d")
        };
        let duration = self.parsed(parse, &remedy)?;
        self.within(duration, &range, |duration| format!("{:?}", text::duration_text(*duration)))
    }

    /// A size in bytes, with its unit.
    pub fn size(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let bounds = (text::size_text(*range.start()), text::size_text(*range.end()));
        let remedy = format!("write {:?} to {:?}", bounds.0, bounds.1);
        if let DeValue::Integer(number) = self.value {
            self.wrong("a size has a unit", format!("write \"{number}B\" if bytes are meant"));
            return None;
        }
        let parse = |text: &str| {
            text::size(text).ok_or("a size is a whole number and B, KiB, MiB, GiB or TiB")
        };
        let size = self.parsed(parse, &remedy)?;
        self.within(size, &range, |size| format!("{:?}", text::size_text(*size)))
    }

    /// A whole number.
    pub fn integer<T>(&self, range: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<u64> + PartialOrd + Display + Copy,
    {
        let remedy = format!("write {} to {}", range.start(), range.end());
        let DeValue::Integer(number) = self.value else {
            self.wrong(format!("it is {}", kind(self.value)), remedy);
            return None;
        };
        let value = u64::from_str_radix(number.as_str(), number.radix()).ok();
        let Some(value) = value.and_then(|value| T::try_from(value).ok()) else {
            self.wrong(format!("{number} is out of bounds"), remedy);
            return None;
        };
        self.within(value, &range, T::to_string)
    }

    /// `true` or `false`.
    pub fn flag(&self) -> Option<bool> {
        let flag = self.value.as_bool();
        if flag.is_none() {
            self.wrong(
                format!("it is {}", kind(self.value)),
                "write true or false, without quotes",
            );
        }
        flag
    }

    /// One of some words.
    pub fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let quoted: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        let remedy = format!("write {}", quoted.join(" or "));
        let parse = |text: &str| match words.iter().find(|(word, _)| *word == text) {
            Some((_, meaning)) => Ok(*meaning),
            None => Err(match text::closest(text, words.iter().map(|(word, _)| *word)) {
                Some(meant) => format!("there is no such word here; did you mean {meant:?}?"),
                None => "there is no such word here".to_owned(),
            }),
        };
        self.parsed(parse, remedy)
    }

    /// A path, made absolute: relative ones are relative to the file.
    pub fn path(&self) -> Option<PathBuf> {
        self.text("write a path in quotes").map(|path| self.ledger.folder().join(path))
    }

    /// An address to listen on.
    pub fn listen(&self) -> Option<SocketAddr> {
        let parse = |text: &str| {
            text.parse().map_err(|_| "it is no address with a port (names are not looked up)")
        };
        self.parsed(parse, "write an address such as \"127.0.0.1:10025\" or \"[::1]:10025\"")
    }

    /// Somebody to dial.
    pub fn endpoint(&self) -> Option<Endpoint> {
        self.parsed(str::parse, "write host and port, such as \"127.0.0.1:10026\"")
    }

    /// What we call ourselves in SMTP (RFC 5321 4.1.1.1): a host name.
    pub fn host_name(&self) -> Option<String> {
        let parse = |text: &str| crate::net::check_host(text).map(|()| text.to_owned());
        self.parsed(parse, "write a host name such as \"mx1.example.com\"")
    }

    /// The items of a list that `read` takes; at most `count_max`. `None` if it is no list or any item is wrong.
    pub fn list<T>(
        &self,
        count_max: usize,
        remedy: &str,
        read: impl Fn(&Value<'d>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let items = self.items(remedy)?;
        if items.len() > count_max {
            self.wrong(
                format!("it has {} items", items.len()),
                format!("write at most {count_max}"),
            );
            return None;
        }
        let taken: Vec<T> = items
            .iter()
            .filter_map(|item| {
                let place = self.place.clone();
                read(&Value::new(self.ledger, place, item.get_ref(), item.span().start))
            })
            .collect();
        (taken.len() == items.len()).then_some(taken)
    }

    /// A table.
    pub fn table(&self) -> Option<Table<'d>> {
        let Some(entries) = self.value.as_table() else {
            self.wrong(
                format!("it is {}", kind(self.value)),
                "write a table: { key = value, ... }",
            );
            return None;
        };
        Some(Table::new(self.ledger, entries, self.place.clone(), self.offset))
    }

    /// The items of a list.
    pub(crate) fn items(&self, remedy: impl Display) -> Option<&'d DeArray<'d>> {
        let items = self.value.as_array();
        if items.is_none() {
            self.wrong(format!("it is {}", kind(self.value)), remedy);
        }
        items
    }

    fn checked(
        &self,
        check: impl Fn(&str) -> Result<(), &'static str>,
        example: &str,
    ) -> Option<String> {
        let lower = self.value.as_str().unwrap_or_default().to_ascii_lowercase();
        let remedy = match check(&lower) {
            Ok(()) => format!("write {lower:?}"),
            Err(_) => format!("write {example}"),
        };
        self.parsed(|text| check(text).map(|()| text.to_owned()), remedy)
    }

    fn string(&self, remedy: impl Display) -> Option<&'d str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.wrong(format!("it is {}", kind(self.value)), remedy);
        }
        text
    }

    fn within<T: PartialOrd>(
        &self,
        value: T,
        range: &RangeInclusive<T>,
        text: impl Fn(&T) -> String,
    ) -> Option<T> {
        if range.contains(&value) {
            return Some(value);
        }
        let side = if value < *range.start() { "too little" } else { "too much" };
        let remedy = format!("write {} to {}", text(range.start()), text(range.end()));
        self.wrong(format!("{} is {side}", text(&value)), remedy);
        None
    }
}

/// A value's type, as people say it.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// As much of a wrong value as a line of a terminal can take.
pub(crate) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((cut, _)) => format!("{}...", text.get(..cut).unwrap_or_default()),
        None => text.to_owned(),
    }
}
