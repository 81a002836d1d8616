//! From the policy file's tables to the resolved policy.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_config::{Network, Table, Value};
use gantry_mail::{EDITS_MAX, HeaderEdit, Mask, check_edits};
use gantry_protocol::id::Digest;
use gantry_protocol::limits::{NEEDS_MAX, TEXT_BYTES_MAX};

use super::address::Addresses;
use super::condition::{Condition, Direction, HeaderCondition};
use super::notice::read as notice;
use super::outcome::{Engines, Kind};
use super::{Answer, Outcomes, Policy, Rule, keys};

/// Rules are gone through for every recipient.
const RULES_MAX: usize = 256;
const GROUPS_MAX: usize = 256;
/// Items of one list in the policy file itself; longer ones stand in files.
const ITEMS_MAX: usize = 1_024;
/// Lists in files.
const LISTS_MAX: usize = 64;
/// Largest list in a file, in bytes: some 300,000 addresses.
const LIST_BYTES_MAX: u64 = 8 << 20;
/// Masks of one list that are no plain domain: they are tried one by one.
const MASKS_MAX: usize = 1_024;
/// Header changes of all rules together; the result header is one more.
const RULE_EDITS_MAX: usize = EDITS_MAX - 1;

const ADDRESSES: &str = "write a list such as [\"boss@example.com\", \"*@example.org\", \"<>\", \"group:staff\", \
                         \"file:vips.txt\"]";
const MASKS: &str = "write a list such as [\"mail.box\", \"out*\"]";
const NEEDS: &str = "write a list of needs such as [\"virus\"]";
const HEADERS: &str = "write a list such as [\"X-Scanned: yes\"]";
const OUTCOME: &str = "say what happens to such mail: \"quarantine\", \"hold\", \"retry\", \"reject\", \"discard\" or \
                       \"release\"";
const TEXT: &str = "write a sentence in quotes";

/// A policy without its digest, and the bytes of the lists that it names.
pub(super) struct ReadPolicy {
    pub(super) policy: Policy,
    pub(super) lists: BTreeMap<PathBuf, Vec<u8>>,
}

/// What is known while the file is read.
#[derive(Default)]
struct Reader {
    groups: Vec<(String, Arc<Addresses>)>,
    notices: notice::Names,
    lists: RefCell<BTreeMap<PathBuf, Vec<u8>>>,
}

pub(super) fn policy(top: &Table<'_>) -> Option<ReadPolicy> {
    top.allow(keys::TOP);
    let mut reader = Reader::default();
    for table in top.tables("group", 0..=GROUPS_MAX) {
        reader.group(&table);
    }
    let local = top.value("local").map(|value| reader.addresses(&value));
    let outcomes = top
        .required("outcomes", "write [outcomes] and what happens to mail that is not clean")
        .and_then(|value| value.table());
    let outcomes = outcomes.and_then(|table| read_outcomes(&table));
    let engines = engines(top);
    let (names, notices) = notice::notices(top);
    reader.notices = names;
    let tables = top.tables("rule", 0..=RULES_MAX);
    let rules: Vec<Option<Rule>> =
        tables.iter().map(|table| reader.rule(table, local.is_some())).collect();
    let edits: usize = rules.iter().flatten().map(|rule| rule.edits.len()).sum();
    if edits > RULE_EDITS_MAX {
        let problem = format!("all rules together change the header block {edits} times");
        top.wrong("rule", problem, format!("write at most {RULE_EDITS_MAX} changes"));
    }
    let policy = Policy {
        digest: Digest([0; 32]),
        files: Vec::new(),
        outcomes: outcomes?,
        engines: engines?,
        local: local.unwrap_or_else(|| Some(Addresses::default()))?,
        notices: notices?,
        rules: rules.into_iter().collect::<Option<_>>()?,
    };
    Some(ReadPolicy { policy, lists: reader.lists.into_inner() })
}

fn read_outcomes(table: &Table<'_>) -> Option<Outcomes> {
    table.allow(keys::OUTCOMES);
    let answer = |key| table.required(key, OUTCOME).and_then(|value| word(&value));
    let [found, unscanned, encrypted, malformed, over_budget] =
        Kind::ALL.map(|kind| answer(kind.key()));
    if unscanned == Some(Answer::Release) {
        table.wrong(
            "unscanned",
            "what nobody has looked at cannot be released: the hook refuses such a verdict",
            "write \"retry\"; to let mail out while no worker is there, see when_unprocessed in hook.toml",
        );
    }
    Some(Outcomes {
        found: found?,
        unscanned: unscanned?,
        encrypted: encrypted?,
        malformed: malformed?,
        over_budget: over_budget?,
    })
}

/// What becomes of a message, in one word.
fn word(value: &Value<'_>) -> Option<Answer> {
    let words: Vec<(&str, usize)> =
        WORDS.iter().enumerate().map(|(at, word)| (*word, at)).collect();
    Some(match value.one_of(&words)? {
        0 => Answer::Release,
        1 => Answer::Retry,
        2 => Answer::Hold,
        3 => Answer::Quarantine,
        4 => Answer::Discard,
        _ => Answer::Reject {
            code: 550,
            enhanced: "5.7.1".to_owned(),
            text: "refused by policy".to_owned(),
        },
    })
}

const WORDS: &[&str] = &["release", "retry", "hold", "quarantine", "discard", "reject"];

fn engines(top: &Table<'_>) -> Option<BTreeMap<String, Engines>> {
    let mut all = BTreeMap::new();
    let mut whole = true;
    for table in top.tables("need", 0..=NEEDS_MAX) {
        table.allow(keys::NEED);
        let name = table.required("name", "write the need, such as name = \"virus\"");
        let name = name.and_then(|value| value.need());
        let words = [("all", Engines::All), ("any", Engines::AtLeast(1))];
        let engines = match (table.value("engines"), table.value("quorum")) {
            (Some(engines), None) => engines.one_of(&words),
            (None, Some(quorum)) => quorum.integer(1..=NEEDS_MAX).map(Engines::AtLeast),
            (Some(_), Some(quorum)) => {
                quorum.wrong("engines is there, too", "remove one of them");
                None
            }
            (None, None) => {
                let remedy = "write engines = \"any\", engines = \"all\", or quorum = 2";
                table.wrong("engines", "it is missing, and so is quorum", remedy);
                None
            }
        };
        if name.as_ref().is_some_and(|name| all.contains_key(name)) {
            table.wrong("name", "another [[need]] has this name", "remove one of them");
        }
        match name.zip(engines) {
            Some((name, engines)) => _ = all.insert(name, engines),
            None => whole = false,
        }
    }
    whole.then_some(all)
}

impl Reader {
    fn group(&mut self, table: &Table<'_>) {
        table.allow(keys::GROUP);
        let name = table.required("name", "write a name, such as name = \"staff\"");
        let addresses = table.required("addresses", ADDRESSES);
        let name = name.and_then(|value| value.name());
        let addresses = addresses.and_then(|value| self.addresses(&value));
        if let Some(name) = name {
            if self.groups.iter().any(|(known, _)| *known == name) {
                table.wrong("name", "another group has this name", "write a name of its own");
            }
            // A group whose addresses are wrong is still known, so that its uses are not reported as well.
            self.groups.push((name, Arc::new(addresses.unwrap_or_default())));
        }
    }

    fn rule(&self, table: &Table<'_>, has_local: bool) -> Option<Rule> {
        table.allow(keys::RULE);
        let name = table.required("name", "write a name, such as name = \"no mail from robots\"");
        let name = name.and_then(|value| value.text(TEXT));
        let condition = |key| {
            let table = table.value(key)?.table();
            Some(table.and_then(|table| self.condition(&table, has_local)))
        };
        let (when, unless) = (condition("when"), condition("unless"));
        let run = table.value("run").map_or_else(|| Some(Vec::new()), |value| needs(&value));
        let edits = edits(table);
        let notify = table
            .value("notify")
            .map_or_else(|| Some(Vec::new()), |value| notice::named(&value, &self.notices));
        let then = then(table);
        let reason = table.value("reason").map(|value| value.text(TEXT));
        let stop = table.or("stop", false, |value| value.flag());
        if stop && table.has("then") {
            table.wrong("stop", "then ends the rules already", "remove stop");
        }
        let acts = ["run", "add_headers", "remove_headers", "notify", "then"]
            .iter()
            .any(|key| table.has(key));
        if !acts && !stop {
            table.wrong(
                "then",
                "the rule does nothing",
                "write what it does, such as then = \"hold\"",
            );
        }
        if let Some(Some(Answer::Release)) = &then
            && let Some(Some(when)) = &when
            && when.problems.iter().any(|(kind, _)| *kind == Kind::Unscanned)
        {
            table.wrong(
                "then",
                "what nobody has looked at cannot be released: the hook refuses such a verdict",
                "write another answer, or leave unscanned out of when",
            );
        }
        if let Some(value) = table.value("reason")
            && !matches!(then, Some(Some(Answer::Hold | Answer::Quarantine | Answer::Retry)))
        {
            value.wrong("only hold, quarantine and retry have a reason", "remove it");
        }
        Some(Rule {
            name: name?.to_owned(),
            when: when.unwrap_or_else(|| Some(Condition::default()))?,
            unless: unless.map_or(Some(None), |unless| unless.map(Some))?,
            run: run?,
            edits: edits?,
            notify: notify?,
            then: then.map_or(Some(None), |then| then.map(Some))?,
            reason: reason.map_or(Some(None), |reason| reason.map(|text| Some(text.to_owned())))?,
            stop,
        })
    }

    fn condition(&self, table: &Table<'_>, has_local: bool) -> Option<Condition> {
        table.allow(keys::CONDITION);
        let addresses = |key| optional(table.value(key), |value| self.addresses(value));
        let list = |key| optional(table.value(key), needs);
        let mailbox = optional(table.value("mailbox"), |value| masks(value, MASKS));
        let direction = optional(table.value("direction"), directions);
        if !has_local {
            let remedy = "write local = [\"*@example.com\"] at the top of the file";
            table.refuse("direction", "nothing says which addresses are local", remedy);
        }
        let (sender, recipient) = (addresses("sender"), addresses("recipient"));
        let client = optional(table.value("client"), networks);
        let size = |key| optional(table.value(key), |value| value.size(0..=1 << 40));
        let (larger_than, smaller_than) = (size("larger_than"), size("smaller_than"));
        let headers = table.tables("header", 0..=ITEMS_MAX);
        let headers: Option<Vec<_>> = headers.iter().map(header).collect();
        let clean = list("clean");
        let names = optional(table.value("names"), |value| {
            masks(value, "write a list such as [\"Heuristics.*\"]")
        });
        if !table.has("found") {
            let remedy = "write found = [\"virus\"] beside it";
            table.refuse("names", "only what was found has names", remedy);
        }
        let problems: Option<Vec<(Kind, Vec<String>)>> = Kind::ALL
            .into_iter()
            .filter_map(|kind| Some((kind, needs(&table.value(kind.key())?))))
            .map(|(kind, needs)| needs.map(|needs| (kind, needs)))
            .collect();
        Some(Condition {
            mailbox: mailbox?,
            direction: direction?,
            sender: sender?,
            recipient: recipient?,
            client: client?,
            larger_than: larger_than?,
            smaller_than: smaller_than?,
            headers: headers?,
            clean: clean?,
            problems: problems?,
            names: names?,
        })
    }

    /// Addresses, masks, groups, and lists in files.
    fn addresses(&self, value: &Value<'_>) -> Option<Addresses> {
        let set = RefCell::new(Addresses::default());
        let items = value.list(ITEMS_MAX, ADDRESSES, |item| {
            let text = item.text(ADDRESSES)?;
            let mut set = set.borrow_mut();
            if let Some(name) = text.strip_prefix("group:") {
                set.add_group(self.group_of(item, name)?);
            } else if let Some(path) = text.strip_prefix("file:") {
                self.add_file(item, &item.folder().join(path), &mut set)?;
            } else if let Err(problem) = set.add(text) {
                item.wrong(format!("{text:?}: {problem}"), ADDRESSES);
                return None;
            }
            Some(())
        })?;
        not_empty(value, items, ADDRESSES)?;
        let set = set.into_inner();
        if set.masks() > MASKS_MAX {
            let problem = format!("it has {} masks that are no plain *@domain", set.masks());
            value.wrong(problem, format!("write at most {MASKS_MAX}"));
            return None;
        }
        Some(set)
    }

    fn group_of(&self, item: &Value<'_>, name: &str) -> Option<Arc<Addresses>> {
        let known = self.groups.iter().find(|(known, _)| known == name);
        if known.is_none() {
            let names = self.groups.iter().map(|(known, _)| known.as_str());
            let remedy = match gantry_config::closest(name, names) {
                Some(meant) => format!("did you mean \"group:{meant}\"?"),
                None => "write a [[group]] of this name".to_owned(),
            };
            item.wrong(format!("there is no group {name:?}"), remedy);
        }
        known.map(|(_, group)| Arc::clone(group))
    }

    /// One address or mask in a line; `#` begins a comment.
    fn add_file(&self, item: &Value<'_>, path: &Path, set: &mut Addresses) -> Option<()> {
        let remedy = "write the path of a text file with an address in each line";
        let mut lists = self.lists.borrow_mut();
        if !lists.contains_key(path) {
            let mut bytes = Vec::new();
            let read = std::fs::File::open(path)
                .and_then(|file| file.take(LIST_BYTES_MAX + 1).read_to_end(&mut bytes));
            if let Err(error) = read {
                item.wrong(format!("read {}: {error}", path.display()), remedy);
                return None;
            }
            if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > LIST_BYTES_MAX {
                item.wrong(
                    format!("{} is larger than 8MiB", path.display()),
                    "write a shorter list",
                );
                return None;
            }
            if lists.len() >= LISTS_MAX {
                item.wrong("there are too many lists", format!("name at most {LISTS_MAX} files"));
                return None;
            }
            lists.insert(path.to_owned(), bytes);
        }
        let Ok(text) = std::str::from_utf8(lists.get(path)?) else {
            item.wrong(format!("{} is no text in UTF-8", path.display()), remedy);
            return None;
        };
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            if let Err(problem) = set.add(line) {
                item.wrong(format!("{}:{}: {problem}", path.display(), number + 1), remedy);
                return None;
            }
        }
        Some(())
    }
}

/// Nothing where the key is missing, `None` where its value is wrong.
fn optional<'d, T>(
    value: Option<Value<'d>>,
    read: impl FnOnce(&Value<'d>) -> Option<T>,
) -> Option<Option<T>> {
    match value {
        Some(value) => read(&value).map(Some),
        None => Some(None),
    }
}

fn then(table: &Table<'_>) -> Option<Option<Answer>> {
    let answer = table.value("then").map(|value| word(&value));
    let Some(Some(Answer::Reject { code, enhanced, text })) = answer else {
        for key in ["code", "enhanced", "text"] {
            table.refuse(key, "only a rule with then = \"reject\" has one", "remove it");
        }
        return answer;
    };
    let code = table.or("code", code, |value| value.integer(500..=599));
    let enhanced = table.or("enhanced", enhanced, |value| {
        value.parsed(enhanced_code, "write a code of RFC 3463 such as \"5.7.1\"")
    });
    let text =
        table.or("text", text, |value| value.parsed(reply_text, "write a short sentence in ASCII"));
    Some(Some(Answer::Reject { code, enhanced, text }))
}

fn enhanced_code(text: &str) -> Result<String, &'static str> {
    let parts: Vec<&str> = text.split('.').collect();
    let number = |part: &&str| {
        (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    match parts.as_slice() {
        ["5", rest @ ..] if rest.len() == 2 && rest.iter().all(number) => Ok(text.to_owned()),
        _ => Err("it is no 5.x.y"),
    }
}

/// It becomes a line of SMTP.
fn reply_text(text: &str) -> Result<String, &'static str> {
    let printable = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    match printable && !text.is_empty() && text.len() <= TEXT_BYTES_MAX {
        true => Ok(text.to_owned()),
        false => Err("it is empty, too long, or not all printable ASCII"),
    }
}

fn edits(table: &Table<'_>) -> Option<Vec<HeaderEdit>> {
    let read = |key, edit: fn(String) -> HeaderEdit, name: fn(&str) -> &str| {
        let Some(value) = table.value(key) else { return Some(Vec::new()) };
        value.list(ITEMS_MAX, HEADERS, |item| {
            let text = item.text(HEADERS)?;
            let edit = edit(text.to_owned());
            if let Err(error) = check_edits(std::slice::from_ref(&edit)) {
                item.wrong(error, HEADERS);
                return None;
            }
            let name = name(text).trim().to_ascii_lowercase();
            if name == "x-gantry" || name.starts_with("x-gantry-") {
                item.wrong("X-Gantry fields are Gantry's own", "write another name");
                return None;
            }
            Some(edit)
        })
    };
    let added = read(
        "add_headers",
        |field| HeaderEdit::Prepend { field },
        |text| text.split(':').next().unwrap_or_default(),
    );
    let removed = read("remove_headers", |name| HeaderEdit::Remove { name }, |text| text);
    let mut edits = added?;
    edits.extend(removed?);
    Some(edits)
}

fn needs(value: &Value<'_>) -> Option<Vec<String>> {
    let needs = value.list(NEEDS_MAX, NEEDS, |item| item.need())?;
    not_empty(value, needs, NEEDS)
}

fn masks(value: &Value<'_>, remedy: &str) -> Option<Vec<Mask>> {
    let masks = value.list(ITEMS_MAX, remedy, |item| item.text(remedy).map(Mask::new))?;
    not_empty(value, masks, remedy)
}

fn networks(value: &Value<'_>) -> Option<Vec<Network>> {
    let remedy = "write a list such as [\"192.0.2.7\", \"10.0.0.0/8\"]";
    let networks = value.list(ITEMS_MAX, remedy, |item| item.parsed(str::parse, remedy))?;
    not_empty(value, networks, remedy)
}

fn directions(value: &Value<'_>) -> Option<Vec<Direction>> {
    let remedy = "write a list such as [\"in\"]";
    let words = [
        ("in", Direction::In),
        ("out", Direction::Out),
        ("internal", Direction::Internal),
        ("through", Direction::Through),
    ];
    let directions = value.list(ITEMS_MAX, remedy, |item| item.one_of(&words))?;
    not_empty(value, directions, remedy)
}

fn header(table: &Table<'_>) -> Option<HeaderCondition> {
    table.allow(keys::HEADER);
    let remedy = "write a field's name, such as name = \"Subject\"";
    let name = table.required("name", remedy).and_then(|value| value.text(remedy));
    let matches = table.value("matches");
    let values = matches.map_or_else(
        || Some(Vec::new()),
        |value| masks(&value, "write a list such as [\"*invoice*\"]"),
    );
    Some(HeaderCondition { name: name?.to_owned(), values: values? })
}

/// An empty list would never apply, and was hardly meant.
fn not_empty<T>(value: &Value<'_>, items: Vec<T>, remedy: &str) -> Option<Vec<T>> {
    if items.is_empty() {
        value.wrong("the list is empty", remedy);
        return None;
    }
    Some(items)
}
