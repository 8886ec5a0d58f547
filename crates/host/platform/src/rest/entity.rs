//! Actions as OpenWhisk describes them: what a caller may write of one, what is kept, and what is told.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::config::{
    DEFAULT_MEMORY_MIB, DEFAULT_TIMEOUT, MAX_LOGS, MIN_MEMORY_MIB, MIN_TIMEOUT, RestConfig,
};
use super::failure::Failure;
use super::{millis, now_ms};
use crate::ActionName;

/// The one kind of action there is.
pub(super) const KIND: &str = "blackbox";

/// An entity's name, by OpenWhisk's rule: 1 to 256 letters, digits, spaces and `_@.-`, which begins with a letter, a digit or `_` and
/// does not end with a space. ASCII only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EntityName(String);

impl EntityName {
    const MAX_LEN: usize = 256;

    pub(super) fn new(name: &str) -> Result<Self, Failure> {
        let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
        let inner = |c: u8| word(c) || b" @.-".contains(&c);
        let good = name.len() <= Self::MAX_LEN
            && name.bytes().next().is_some_and(word)
            && name.bytes().all(inner)
            && !name.ends_with(' ');
        if good {
            return Ok(Self(name.to_owned()));
        }
        Err(Failure::BadRequest(format!(
            "a name has 1 to {} letters, digits, spaces and _@.-, begins with a letter, a digit or _ and does not end with a space",
            Self::MAX_LEN
        )))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What actions and records are annotated with, and what actions are given.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct KeyValue {
    pub(super) key: String,
    pub(super) value: Box<RawValue>,
}

impl KeyValue {
    pub(super) fn new(key: &str, value: &impl Serialize) -> Option<Self> {
        Some(Self {
            key: key.to_owned(),
            value: serde_json::value::to_raw_value(value).ok()?,
        })
    }
}

/// What an action may take, in OpenWhisk's units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct ActionLimits {
    /// Milliseconds of a run.
    pub(super) timeout: u64,
    /// MiB of an instance.
    pub(super) memory: u32,
    /// MB of logs.
    pub(super) logs: u32,
    /// Requests at once in an instance.
    pub(super) concurrency: u32,
}

/// An action that is deployed. One that is replaced stays as it is for the activations that it has.
pub(super) struct Action {
    pub(super) name: EntityName,
    /// The last part of its version, `0.0.N`.
    pub(super) version: u32,
    pub(super) image: String,
    pub(super) limits: ActionLimits,
    pub(super) annotations: Vec<KeyValue>,
    pub(super) parameters: Vec<KeyValue>,
    pub(super) publish: bool,
    /// Milliseconds since 1970.
    pub(super) updated: u64,
    /// What the embedded platform calls this version of it.
    pub(super) deployed: ActionName,
}

/// The body of a `PUT`. What it does not say stays as it is, or is the default.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Put {
    exec: Option<Exec>,
    limits: Option<PutLimits>,
    annotations: Option<Vec<KeyValue>>,
    parameters: Option<Vec<KeyValue>>,
    publish: Option<bool>,
}

#[derive(Deserialize)]
struct Exec {
    kind: String,
    image: Option<String>,
    code: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PutLimits {
    timeout: Option<u64>,
    memory: Option<u32>,
    logs: Option<u32>,
    concurrency: Option<u32>,
}

impl Put {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Failure> {
        serde_json::from_slice(body).map_err(|error| {
            Failure::BadRequest(format!("the body does not describe an action: {error}"))
        })
    }

    /// The action that this makes, of `old` if there is one, to be known to the platform as `deployed`.
    pub(super) fn onto(
        self,
        name: &EntityName,
        old: Option<&Action>,
        deployed: ActionName,
        config: &RestConfig,
    ) -> Result<Action, Failure> {
        let image = match (self.exec, old) {
            (Some(exec), _) => exec.image(config)?,
            (None, Some(old)) => old.image.clone(),
            (None, None) => return Err(bad("exec is missing: it says what the action runs")),
        };
        let limits = self.limits.unwrap_or_default();
        let parameters = self
            .parameters
            .or_else(|| old.map(|old| old.parameters.clone()));
        let annotations = self
            .annotations
            .or_else(|| old.map(|old| old.annotations.clone()));
        Ok(Action {
            name: name.clone(),
            version: old.map_or(1, |old| old.version.saturating_add(1)),
            image,
            limits: limits.over(old.map(|old| old.limits), config)?,
            annotations: annotated(annotations.unwrap_or_default()),
            parameters: parameters.unwrap_or_default(),
            publish: self.publish.or(old.map(|old| old.publish)).unwrap_or(false),
            updated: now_ms(),
            deployed,
        })
    }
}

impl Exec {
    fn image(self, config: &RestConfig) -> Result<String, Failure> {
        if self.kind != KIND {
            return Err(bad(&format!("exec.kind must be {KIND:?}")));
        }
        if self.code.is_some_and(|code| !code.is_empty()) {
            return Err(bad("exec.code must be empty: images take no code here"));
        }
        let image = self.image.unwrap_or_default();
        if config.images.contains_key(&image) {
            return Ok(image);
        }
        let known: Vec<&str> = config.images.keys().map(String::as_str).collect();
        Err(bad(&format!(
            "exec.image must be one that the operator has registered: {}",
            known.join(", ")
        )))
    }
}

impl PutLimits {
    fn over(self, old: Option<ActionLimits>, config: &RestConfig) -> Result<ActionLimits, Failure> {
        let defaults = ActionLimits {
            timeout: millis(DEFAULT_TIMEOUT.min(config.max_timeout)),
            memory: DEFAULT_MEMORY_MIB.min(config.max_memory_mib),
            logs: MAX_LOGS,
            concurrency: 1,
        };
        let under = old.unwrap_or(defaults);
        let (least, most) = (millis(MIN_TIMEOUT), millis(config.max_timeout));
        let limits = ActionLimits {
            timeout: self.timeout.unwrap_or(under.timeout),
            memory: self.memory.unwrap_or(under.memory),
            logs: self.logs.unwrap_or(under.logs),
            concurrency: self.concurrency.unwrap_or(under.concurrency),
        };
        let memory = (MIN_MEMORY_MIB, config.max_memory_mib);
        within("timeout", limits.timeout, least, most)?;
        within("memory", limits.memory, memory.0, memory.1)?;
        within("logs", limits.logs, 0, MAX_LOGS)?;
        within("concurrency", limits.concurrency, 1, config.max_concurrency)?;
        Ok(limits)
    }
}

fn within<T: Into<u64>>(name: &str, value: T, from: T, to: T) -> Result<(), Failure> {
    let (value, from, to) = (value.into(), from.into(), to.into());
    if (from..=to).contains(&value) {
        return Ok(());
    }
    Err(bad(&format!("limits.{name} must be {from} to {to}")))
}

fn bad(sentence: &str) -> Failure {
    Failure::BadRequest(sentence.to_owned())
}

/// The caller's annotations, and those that are the platform's to say.
fn annotated(mut annotations: Vec<KeyValue>) -> Vec<KeyValue> {
    annotations.retain(|it| it.key != "exec" && it.key != "provide-api-key");
    // An action is never given its caller's key, whoever asks for it.
    annotations.extend(KeyValue::new("provide-api-key", &false));
    annotations.extend(KeyValue::new("exec", &KIND));
    annotations
}

/// An action, as it is told.
#[derive(Serialize)]
pub(super) struct ActionView<'a> {
    namespace: &'a str,
    name: &'a str,
    version: String,
    publish: bool,
    exec: ExecView<'a>,
    limits: ActionLimits,
    annotations: &'a [KeyValue],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<&'a [KeyValue]>,
    updated: u64,
}

#[derive(Serialize)]
struct ExecView<'a> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<&'a str>,
    binary: bool,
}

impl Action {
    pub(super) fn version(&self) -> String {
        format!("0.0.{}", self.version)
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.limits.timeout)
    }

    pub(super) fn view<'a>(&'a self, namespace: &'a str) -> ActionView<'a> {
        ActionView {
            namespace,
            name: self.name.as_str(),
            version: self.version(),
            publish: self.publish,
            exec: ExecView {
                kind: KIND,
                image: Some(&self.image),
                binary: false,
            },
            limits: self.limits,
            annotations: &self.annotations,
            parameters: Some(&self.parameters),
            updated: self.updated,
        }
    }

    /// As one of a list: without what may be large, or private.
    pub(super) fn summary<'a>(&'a self, namespace: &'a str) -> ActionView<'a> {
        let whole = self.view(namespace);
        ActionView {
            exec: ExecView {
                image: None,
                ..whole.exec
            },
            parameters: None,
            ..whole
        }
    }

    /// The `value` of a run: the call's parameters over those of the action. A call with an array is taken as it is.
    pub(super) fn value(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let given = if body.trim_ascii().is_empty() {
            b"{}"
        } else {
            body
        };
        let wrong = |_| bad("the body must be a JSON object or array");
        if given.trim_ascii_start().starts_with(b"[") {
            let _: Vec<&RawValue> = serde_json::from_slice(given).map_err(wrong)?;
            return Ok(given.to_vec());
        }
        let call: BTreeMap<String, &RawValue> = serde_json::from_slice(given).map_err(wrong)?;
        if self.parameters.is_empty() {
            return Ok(given.to_vec());
        }
        let bound = self.parameters.iter();
        let mut merged: BTreeMap<&str, &RawValue> =
            bound.map(|it| (it.key.as_str(), &*it.value)).collect();
        merged.extend(call.iter().map(|(key, value)| (key.as_str(), *value)));
        serde_json::to_vec(&merged).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Program;

    fn config() -> RestConfig {
        let program = Program {
            binary: "program".into(),
            args: Vec::new(),
            env: BTreeMap::new(),
        };
        RestConfig::new(
            "user:key".parse().unwrap(),
            [("semirt".to_owned(), program)].into(),
        )
    }

    fn put(body: &str, old: Option<&Action>) -> Result<Action, String> {
        let name = EntityName::new("a").map_err(|e| e.to_string())?;
        let deployed = ActionName::new("x").unwrap();
        let put = Put::parse(body.as_bytes()).map_err(|e| e.to_string())?;
        put.onto(&name, old, deployed, &config())
            .map_err(|e| e.to_string())
    }

    const EXEC: &str = r#""exec":{"kind":"blackbox","image":"semirt"}"#;

    #[test]
    fn names_are_openwhisks() {
        for good in ["a", "A b@c.d-e", "_", "0", &"x".repeat(256)] {
            assert!(EntityName::new(good).is_ok(), "{good:?}");
        }
        for bad in [
            "",
            " a",
            "a ",
            "-a",
            "a/b",
            "..",
            "é",
            "a\n",
            &"x".repeat(257),
        ] {
            assert!(EntityName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_action_says_which_registered_image_it_runs_and_nothing_else_of_the_host() {
        assert!(put("{}", None).err().unwrap().contains("exec"));
        for (exec, word) in [
            (r#"{"kind":"nodejs:20","code":"x"}"#, "kind"),
            (r#"{"kind":"blackbox"}"#, "registered: semirt"),
            (r#"{"kind":"blackbox","image":"/bin/sh"}"#, "registered"),
            (r#"{"kind":"blackbox","image":"semirt","code":"x"}"#, "code"),
        ] {
            let error = put(&format!(r#"{{"exec":{exec}}}"#), None).err().unwrap();
            assert!(error.contains(word), "{exec}: {error}");
        }
    }

    #[test]
    fn limits_are_bounded_and_have_openwhisks_defaults() {
        let action = put(&format!("{{{EXEC}}}"), None).unwrap();
        let limits = action.limits;
        assert_eq!(
            (
                limits.timeout,
                limits.memory,
                limits.logs,
                limits.concurrency
            ),
            (60_000, 256, 10, 1)
        );
        for bad in [
            r#"{"timeout":99}"#,
            r#"{"timeout":300001}"#,
            r#"{"memory":127}"#,
            r#"{"memory":513}"#,
            r#"{"logs":11}"#,
            r#"{"concurrency":0}"#,
            r#"{"concurrency":65}"#,
            r#"{"memory":-1}"#,
        ] {
            assert!(
                put(&format!(r#"{{{EXEC},"limits":{bad}}}"#), None).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn an_update_keeps_what_it_does_not_mention_and_counts_the_version() {
        let parameters = r#""parameters":[{"key":"k","value":{"n":1}}]"#;
        let first = put(
            &format!(r#"{{{EXEC},{parameters},"limits":{{"memory":512}}}}"#),
            None,
        )
        .unwrap();
        let second = put(r#"{"limits":{"timeout":500}}"#, Some(&first)).unwrap();
        assert_eq!(
            (first.version(), second.version()),
            ("0.0.1".into(), "0.0.2".into())
        );
        assert_eq!((second.limits.memory, second.limits.timeout), (512, 500));
        assert_eq!(
            (second.image.as_str(), second.parameters.len()),
            ("semirt", 1)
        );
    }

    #[test]
    fn no_action_is_given_its_callers_key() {
        let annotations =
            r#""annotations":[{"key":"provide-api-key","value":true},{"key":"x","value":1}]"#;
        let action = put(&format!("{{{EXEC},{annotations}}}"), None).unwrap();
        let told = serde_json::to_value(action.view("guest")).unwrap();
        assert_eq!(
            told["annotations"],
            serde_json::json!([
                {"key": "x", "value": 1},
                {"key": "provide-api-key", "value": false},
                {"key": "exec", "value": "blackbox"},
            ])
        );
        assert!(serde_json::to_value(action.summary("guest")).unwrap()["parameters"].is_null());
    }

    #[test]
    fn the_calls_parameters_win_over_the_actions() {
        let parameters = r#""parameters":[{"key":"a","value":1},{"key":"b","value":[2]}]"#;
        let action = put(&format!("{{{EXEC},{parameters}}}"), None).unwrap();
        let value = |body: &str| {
            let value = action.value(body.as_bytes()).map_err(|e| e.to_string())?;
            serde_json::from_slice(&value).map_err(|e| e.to_string())
        };
        assert_eq!(value(""), Ok(serde_json::json!({"a": 1, "b": [2]})));
        assert_eq!(
            value(r#"{"b":3,"c":"é"}"#),
            Ok(serde_json::json!({"a": 1, "b": 3, "c": "é"}))
        );
        assert_eq!(value("[1]"), Ok(serde_json::json!([1])));
        for bad in ["1", "\"x\"", "{", "{}x", "[1", "null", "{\"a\":}"] {
            assert!(value(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_call_says_cannot_leave_the_value_of_the_run() {
        let action = put(&format!("{{{EXEC}}}"), None).unwrap();
        // Were it taken as it is, it would close the value and write a deadline of its own.
        assert!(action.value(br#"{"a":1},"deadline":"0""#).is_err());
        assert!(action.value(br#"[],"deadline":"0""#).is_err());
        assert!(action.value(b"{\"a\":\"\xff\"}").is_err());
    }
}
