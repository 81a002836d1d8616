//! The hook's own account of itself, as `gantry-hook status --json` gives it. Read leniently: the demo is not what
//! should break when a field is added.

use serde_json::Value;

/// One status.
#[derive(Clone, Debug, Default)]
pub struct Status(pub Value);

/// A worker as the hook sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerStatus {
    pub name: String,
    pub linked: bool,
    pub readiness: String,
    /// The ids of what it has reserved.
    pub holding: Vec<String>,
}

impl Status {
    /// The first JSON object in what the command printed.
    pub fn parse(output: &str) -> Option<Self> {
        let from = output.find('{')?;
        serde_json::from_str(output.get(from..)?).ok().map(Self)
    }

    /// A counter, 0 where there is none of this name.
    pub fn counter(&self, name: &str) -> u64 {
        self.0.pointer(&format!("/counters/{name}")).and_then(Value::as_u64).unwrap_or(0)
    }

    /// Messages that wait or are being worked on.
    pub fn backlog(&self) -> u64 {
        self.0.pointer("/backlog/messages").and_then(Value::as_u64).unwrap_or(0)
    }

    pub fn workers(&self) -> Vec<WorkerStatus> {
        let text = |value: &Value, key: &str| {
            value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let read = |worker: &Value| WorkerStatus {
            name: text(worker, "name"),
            linked: worker.get("linked").and_then(Value::as_bool).unwrap_or(false),
            readiness: readiness(worker),
            holding: worker
                .get("holding")
                .and_then(Value::as_array)
                .map(|ids| ids.iter().filter_map(Value::as_str).map(str::to_owned).collect())
                .unwrap_or_default(),
        };
        self.list("workers").iter().map(read).collect()
    }

    /// The worker of this name.
    pub fn worker(&self, name: &str) -> Option<WorkerStatus> {
        self.workers().into_iter().find(|worker| worker.name == name)
    }

    /// How many workers are linked and take work.
    pub fn ready(&self) -> usize {
        let ready = |worker: &WorkerStatus| {
            worker.linked && matches!(worker.readiness.as_str(), "ready" | "busy")
        };
        self.workers().iter().filter(|worker| ready(worker)).count()
    }

    /// Id and state of each message listed.
    pub fn messages(&self) -> Vec<(String, String)> {
        let text = |value: &Value, key: &str| Some(value.get(key)?.as_str()?.to_owned());
        let read = |message: &Value| Some((text(message, "id")?, text(message, "state")?));
        self.list("messages").iter().filter_map(read).collect()
    }

    fn list(&self, name: &str) -> &[Value] {
        self.0.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }
}

/// The worker's own word, from its profile where it does not stand beside its name: a text, or an object whose only key
/// is the word and whose value has the reason.
fn readiness(worker: &Value) -> String {
    let said = worker.get("readiness").or_else(|| worker.pointer("/profile/readiness"));
    let word = match said {
        Some(Value::String(word)) => Some(word),
        Some(Value::Object(reasons)) => reasons.keys().next(),
        _ => None,
    };
    word.map(|word| word.to_ascii_lowercase()).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_read_and_what_is_not_is_nothing() {
        let status = Status::parse(
            r#"{"counters":{"taken_over":2},"backlog":{"messages":5},"workers":[
                {"name":"pc-1","linked":true,"readiness":"Busy","holding":["3-1a7"]},{"name":"pc-2"},
                {"name":"pc-3","linked":true,"profile":{"readiness":{"NotReady":{"reason":"clamd"}}}},
                {"name":"pc-4","linked":true,"profile":{"readiness":"Ready"}}],
                "messages":[{"id":"3-1a7","state":"dispatched for pc-1"},{}]}"#,
        )
        .unwrap();
        assert_eq!(
            (status.counter("taken_over"), status.counter("x"), status.backlog()),
            (2, 0, 5)
        );
        assert_eq!(status.ready(), 2);
        assert_eq!(status.worker("pc-3").unwrap().readiness, "notready");
        assert_eq!(status.worker("pc-1").unwrap().holding, ["3-1a7"]);
        assert!(status.worker("pc-2").unwrap().holding.is_empty());
        assert_eq!(status.messages(), [("3-1a7".to_owned(), "dispatched for pc-1".to_owned())]);
        assert!(Status::parse("no").is_none());
    }
}
