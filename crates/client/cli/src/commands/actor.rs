//! An identity at work: connected, its result printed, and what it has seen of KeyService's log kept.

use std::path::PathBuf;

use anstream::println;
use sesemi::{Client, CodeIdentityDigest, Isolation, ModelId, PrincipalId};

use crate::args::Who;
use crate::connection::Connection;
use crate::error::{CliError, During as _};
use crate::seen::keep_seen;

/// Prints a result for people or for machines.
pub(super) fn print(json: bool, value: &serde_json::Value, people: &str) {
    if json {
        println!("{value}");
    } else {
        println!("{people}");
    }
}

/// A connected identity.
pub(super) struct Actor {
    pub(super) client: Client,
    pub(super) connection: Connection,
    identity: PathBuf,
    json: bool,
}

impl Who {
    pub(super) async fn connect(self) -> Result<Actor, CliError> {
        let connection = self.connection.resolve()?;
        let client = connection.client(&self.identity).await?;
        Ok(Actor {
            client,
            connection,
            identity: self.identity,
            json: self.json,
        })
    }
}

impl Actor {
    /// Keeps what was seen, and says what was done in the first line of `people`, with the receipt for programs.
    pub(super) fn done(
        &self,
        people: &str,
        mut value: serde_json::Map<String, serde_json::Value>,
    ) -> Result<(), CliError> {
        value.insert("done".into(), people.into());
        let mut entry = String::new();
        if let Some(last) = self.client.last_acknowledged() {
            let sequence = last.content.state.point.sequence;
            value.insert("log_entry".into(), sequence.into());
            value.insert("command".into(), hex::encode(&last.signed.command).into());
            value.insert("receipt".into(), hex::encode(&last.signed.receipt).into());
            entry = format!(" (log entry {sequence})");
        }
        let (done, rest) = people.split_at(people.find('\n').unwrap_or(people.len()));
        self.show(&value.into(), &format!("{done}{entry}{rest}"))
    }

    /// Keeps what was seen, and prints a result.
    pub(super) fn show(&self, value: &serde_json::Value, people: &str) -> Result<(), CliError> {
        // What was seen is kept even if nobody reads the output to its end.
        keep_seen(&self.identity, self.client.seen(), self.client.custodians())?;
        print(self.json, value, people);
        Ok(())
    }

    /// Whether programs read the output.
    pub(super) fn json(&self) -> bool {
        self.json
    }

    /// The principal that was named, or this one.
    pub(super) fn principal(&self, given: Option<&str>) -> Result<PrincipalId, CliError> {
        match given {
            Some(id) => id.parse().during("read the id"),
            None => Ok(self.client.id()),
        }
    }

    /// The code identities that were named, or SeMIRT's in the stack.
    pub(super) fn codes(&self, given: &[String]) -> Result<Vec<CodeIdentityDigest>, CliError> {
        if given.is_empty() {
            return Ok(vec![self.connection.code(None)?]);
        }
        let codes = given.iter().map(|code| self.connection.code(Some(code)));
        codes.collect()
    }

    /// Refuses a model of somebody else's, for commands that only its owner can give.
    pub(super) fn must_own(&self, model: &ModelId) -> Result<(), CliError> {
        if model.owner == self.client.id() {
            return Ok(());
        }
        Err(CliError::Input(format!(
            "this identity does not own {model}; it is {}",
            self.client.id()
        )))
    }
}

/// A JSON object, to be added to.
pub(super) fn object<const N: usize>(
    fields: [(&str, serde_json::Value); N],
) -> serde_json::Map<String, serde_json::Value> {
    fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Isolation for programs, under the names that the options have.
pub(super) fn isolation_json(isolation: Isolation) -> serde_json::Value {
    serde_json::json!({
        "level": isolation.level.as_str(),
        "response_quantum_ms": isolation.quantum_ms,
    })
}

/// Texts of ids, with commas between.
pub(super) fn joined<T: ToString>(items: &[T]) -> String {
    let texts: Vec<String> = items.iter().map(ToString::to_string).collect();
    texts.join(", ")
}
