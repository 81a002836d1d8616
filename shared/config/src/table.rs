//! A parsed file whose values are taken one by one, each with its place in the file.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::io::Read;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use crate::error::{ConfigError, MISTAKES_MAX};
use crate::net::Endpoint;
use crate::text;

/// Largest configuration file, in bytes: hundreds of times what anybody writes.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// What is shown of a wrong value, in characters.
const SHOWN_CHARS_MAX: usize = 64;

/// The text of a configuration file.
#[derive(Clone, Debug)]
pub struct Document {
    file: PathBuf,
    /// The folder that paths in the file are relative to.
    folder: PathBuf,
    text: String,
}

impl Document {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, is no UTF-8, or is larger than [`FILE_BYTES_MAX`].
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let whole = |problem: String, remedy: &str| ConfigError {
            file: file.to_owned(),
            line: None,
            key: String::new(),
            problem,
            remedy: remedy.to_owned(),
        };
        let mut text = String::new();
        let read = std::fs::File::open(file)
            .and_then(|opened| opened.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
        if let Err(error) = read {
            let remedy = match error.kind() {
                std::io::ErrorKind::NotFound => "name the file with --config",
                std::io::ErrorKind::PermissionDenied => "let the user that runs this read it",
                std::io::ErrorKind::InvalidData => "write it in UTF-8",
                _ => "name a readable file with --config",
            };
            return Err(whole(format!("read the configuration: {error}"), remedy));
        }
        if u64::try_from(text.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
            return Err(whole("it is larger than 1MiB".to_owned(), "name a configuration file"));
        }
        Ok(Self::new(file, text))
    }

    /// Text that would stand in `file`.
    pub fn new(file: &Path, text: impl Into<String>) -> Self {
        let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let folder = absolute.parent().map_or_else(|| absolute.clone(), Path::to_owned);
        Self { file: file.to_owned(), folder, text: text.into() }
    }

    /// Parses the text and hands its top table to `read`, which reports mistakes by way of the tables and values and
    /// may give `None` only if it has.
    ///
    /// # Errors
    /// Every mistake, in the order of the file; at most [`MISTAKES_MAX`]. Mistakes in the syntax hide all others.
    pub fn resolve<T>(
        &self,
        read: impl FnOnce(&Table<'_>) -> Option<T>,
    ) -> Result<T, Vec<ConfigError>> {
        let ledger = Ledger { document: self, mistakes: RefCell::default() };
        let (root, syntax) = DeTable::parse_recoverable(&self.text);
        for error in &syntax {
            let offset = error.span().map_or(0, |span| span.start);
            ledger.report(offset, "", error.message(), "write valid TOML (https://toml.io)");
        }
        let mut resolved = None;
        if syntax.is_empty() {
            let top = Table {
                ledger: &ledger,
                entries: root.get_ref(),
                place: String::new(),
                offset: 0,
                keys: Cell::new(&[]),
            };
            resolved = read(&top);
        }
        let mut mistakes = ledger.mistakes.into_inner();
        mistakes.sort_by_key(|mistake| mistake.line);
        match resolved {
            Some(resolved) if mistakes.is_empty() => Ok(resolved),
            _ => Err(mistakes),
        }
    }
}

/// Collects the mistakes.
struct Ledger<'d> {
    document: &'d Document,
    mistakes: RefCell<Vec<ConfigError>>,
}

impl Ledger<'_> {
    fn report(&self, offset: usize, key: &str, problem: impl Display, remedy: impl Display) {
        let mut mistakes = self.mistakes.borrow_mut();
        if mistakes.len() >= MISTAKES_MAX {
            return;
        }
        let before = self.document.text.as_bytes().get(..offset).unwrap_or_default();
        mistakes.push(ConfigError {
            file: self.document.file.clone(),
            line: Some(1 + before.iter().filter(|byte| **byte == b'\n').count()),
            key: key.to_owned(),
            problem: problem.to_string(),
            remedy: remedy.to_string(),
        });
    }
}

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
            self.ledger.report(offset, &self.key(&shown(name)), "there is no such key", remedy);
        }
    }

    /// The value of a key, if the file has it.
    pub fn value(&self, key: &'static str) -> Option<Value<'d>> {
        debug_assert!(
            self.keys.get().is_empty() || self.keys.get().contains(&key),
            "{key} is read but not allowed"
        );
        let (name, value) = self.entries.get_key_value(key)?;
        Some(Value {
            ledger: self.ledger,
            place: self.key(key),
            value: value.get_ref(),
            offset: name.span().start,
        })
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
        self.ledger.document.folder.clone()
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

    /// The tables of `[[key]]`, named by their `name` or else counted; at most `count_max`.
    pub fn tables(&self, key: &'static str, count_max: usize) -> Vec<Table<'d>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(items) = value.value.as_array() else {
            value.wrong(
                format!("it is {}", kind(value.value)),
                format!("write [[{key}]] above its keys"),
            );
            return Vec::new();
        };
        if items.len() > count_max {
            value.wrong(format!("there are {}", items.len()), format!("write at most {count_max}"));
        }
        let table = |(index, item): (usize, &'d toml::Spanned<DeValue<'d>>)| {
            let entries = item.get_ref().as_table();
            let name = entries
                .and_then(|entries| entries.get("name"))
                .and_then(|name| name.get_ref().as_str())
                .map_or_else(|| (index + 1).to_string(), |name| format!("{:?}", shown(name)));
            let item = Value {
                ledger: self.ledger,
                place: self.key(&format!("{key} {name}")),
                value: item.get_ref(),
                offset: item.span().start,
            };
            item.table()
        };
        items.iter().enumerate().take(count_max).filter_map(table).collect()
    }

    fn key(&self, key: &str) -> String {
        match self.place.is_empty() {
            true => key.to_owned(),
            false => format!("{}: {key}", self.place),
        }
    }
}

/// A value in the file. Each getter gives `None` only after reporting why.
pub struct Value<'d> {
    ledger: &'d Ledger<'d>,
    place: String,
    value: &'d DeValue<'d>,
    offset: usize,
}

impl<'d> Value<'d> {
    /// Reports a mistake in it.
    pub fn wrong(&self, problem: impl Display, remedy: impl Display) {
        self.ledger.report(self.offset, &self.place, problem, remedy);
    }

    /// The folder that the file lies in, absolute.
    pub fn folder(&self) -> PathBuf {
        self.ledger.document.folder.clone()
    }

    /// Whether it is this string.
    pub fn says(&self, text: &str) -> bool {
        self.value.as_str() == Some(text)
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
        self.text("write a path in quotes").map(|path| self.ledger.document.folder.join(path))
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
        let Some(items) = self.value.as_array() else {
            self.wrong(format!("it is {}", kind(self.value)), remedy);
            return None;
        };
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
                read(&Value {
                    ledger: self.ledger,
                    place: self.place.clone(),
                    value: item.get_ref(),
                    offset: item.span().start,
                })
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
        Some(Table {
            ledger: self.ledger,
            entries,
            place: self.place.clone(),
            offset: self.offset,
            keys: Cell::new(&[]),
        })
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
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((cut, _)) => format!("{}...", text.get(..cut).unwrap_or_default()),
        None => text.to_owned(),
    }
}
