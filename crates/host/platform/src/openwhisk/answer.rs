//! What a controller's answers say: records of activations, ids, lists. A controller is not trusted with anything but availability,
//! and what it says of an error is shown to people: shortened, and without control characters.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::{ActionName, ActionStatus, Activation, ActivationId, Form, PlatformError};

/// Most of what somebody said that is repeated, in characters.
const SAID: usize = 300;

/// An activation that has ended.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ended<'b> {
    activation_id: String,
    #[serde(borrow, default)]
    annotations: Vec<Annotation<'b>>,
    #[serde(borrow)]
    response: Response<'b>,
}

#[derive(Deserialize)]
struct Annotation<'b> {
    key: String,
    #[serde(borrow)]
    value: &'b RawValue,
}

#[derive(Deserialize)]
struct Response<'b> {
    status: String,
    success: bool,
    #[serde(borrow, default)]
    result: Option<&'b RawValue>,
}

/// SeMIRT's answer to a request that it served.
#[derive(Deserialize)]
struct Served<'b> {
    #[serde(borrow)]
    response: Cow<'b, str>,
}

/// A result with an error: SeMIRT's own, or what anybody else says.
#[derive(Deserialize)]
struct Erred<'b> {
    #[serde(borrow)]
    error: &'b RawValue,
}

/// SeMIRT's refusal of a request.
#[derive(Deserialize)]
struct Refusal {
    code: String,
    message: String,
}

impl<'b> Ended<'b> {
    /// The record in a body, if one is there.
    pub(super) fn parse(body: &'b [u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    /// What the instance answered, in the form in which it would have answered us. An error if it did not.
    pub(super) fn activation(
        &self,
        action: &ActionName,
        form: Form,
    ) -> Result<Activation, PlatformError> {
        let id: ActivationId = self
            .activation_id
            .parse()
            .unwrap_or_else(|_| ActivationId::from_u128(0));
        let failed = |said: String| PlatformError::ActivationFailed {
            action: action.clone(),
            activation: id,
            status: said_of(&self.response.status),
            said,
        };
        let result = self.response.result.map_or("null", RawValue::get);
        let (status, content_type, body) = match (form, self.response.success) {
            (Form::Sealed, true) => {
                let sealed = served(result);
                let sealed = sealed.ok_or_else(|| {
                    failed(format!("no sealed response: {}", said(result.as_bytes())))
                })?;
                (200, "application/cose", sealed)
            }
            (Form::Sealed, false) => {
                let refusal = self.refusal(result);
                let (status, body) = refusal.ok_or_else(|| failed(said(result.as_bytes())))?;
                (status, "application/json", body)
            }
            (Form::Whisk, success) if success || self.is_applications() => (
                200,
                "application/json",
                Bytes::copy_from_slice(result.as_bytes()),
            ),
            (Form::Whisk, _) => return Err(failed(said(result.as_bytes()))),
        };
        Ok(Activation {
            id,
            status,
            content_type: Some(content_type.to_owned()),
            body,
            wait_time: self.time("waitTime").unwrap_or_default(),
            init_time: self.time("initTime"),
            instance: None,
        })
    }

    fn is_applications(&self) -> bool {
        self.response.status == "application error"
    }

    /// A refusal by SeMIRT, as its `/v1/infer` would have said it.
    fn refusal(&self, result: &str) -> Option<(u16, Bytes)> {
        if !self.is_applications() {
            return None;
        }
        let erred: Erred<'_> = serde_json::from_str(result).ok()?;
        let Refusal { code, message } = serde_json::from_str(erred.error.get()).ok()?;
        let body = json!({"error": message, "code": code}).to_string();
        Some((status_of(&code), body.into()))
    }

    /// An annotation that is a number of milliseconds.
    fn time(&self, key: &str) -> Option<Duration> {
        let annotation = self.annotations.iter().find(|it| it.key == key)?;
        let millis: u64 = serde_json::from_str(annotation.value.get()).ok()?;
        Some(Duration::from_millis(millis))
    }
}

fn served(result: &str) -> Option<Bytes> {
    let served: Served<'_> = serde_json::from_str(result).ok()?;
    let sealed = BASE64.decode(served.response.as_bytes()).ok()?;
    Some(sealed.into())
}

/// The status that SeMIRT's `/v1/infer` has for a refusal. A code that is not known here is a fault further away.
fn status_of(code: &str) -> u16 {
    match code {
        "malformed" | "invalid_input" => 400,
        "not_authentic" => 401,
        "unknown_principal" | "not_granted" | "no_request_key" | "not_attested"
        | "not_permitted" | "code_not_delegated" => 403,
        "unknown_model" | "not_found" => 404,
        "replayed" | "already_exists" | "stale_state" | "wrong_service" => 409,
        "busy" | "too_many" => 429,
        "deadline_exceeded" => 504,
        "engine_failed" | "internal" => 500,
        _ => 502,
    }
}

/// The id of an activation that goes on.
pub(super) fn accepted(body: &[u8]) -> Option<ActivationId> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Accepted {
        activation_id: String,
    }
    let accepted: Accepted = serde_json::from_slice(body).ok()?;
    accepted.activation_id.parse().ok()
}

/// An action of a list.
#[derive(Debug, Deserialize)]
pub(super) struct Listed {
    name: String,
    #[serde(default)]
    limits: ListedLimits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ListedLimits {
    memory: u32,
    concurrency: Option<u32>,
}

impl Listed {
    pub(super) fn parse(body: &[u8]) -> Option<Vec<Self>> {
        serde_json::from_slice(body).ok()
    }

    /// As the trait has it. Actions whose names could not be ours are not.
    pub(super) fn status(self) -> Option<ActionStatus> {
        Some(ActionStatus {
            name: ActionName::new(&self.name).ok()?,
            memory_mib: self.limits.memory,
            concurrency: self.limits.concurrency.unwrap_or(1),
            // OpenWhisk does not tell.
            instances: Vec::new(),
            waiting: 0,
        })
    }
}

/// What a body says of an error: the text of `error`, where that is one, or the body's beginning.
pub(super) fn said(body: &[u8]) -> String {
    let erred: Option<Erred<'_>> = serde_json::from_slice(body).ok();
    let text = match &erred {
        Some(erred) => {
            let text: Result<String, _> = serde_json::from_str(erred.error.get());
            text.map_or(Cow::Borrowed(erred.error.get()), Cow::Owned)
        }
        None => String::from_utf8_lossy(body.get(..body.len().min(4 * SAID)).unwrap_or_default()),
    };
    said_of(&text)
}

fn said_of(text: &str) -> String {
    let visible = text.trim().chars().filter(|c| !c.is_control());
    let said: String = visible.take(SAID).collect();
    if said.is_empty() {
        return "nothing".to_owned();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn record(status: &str, result: serde_json::Value) -> String {
        json!({
            "namespace": "guest", "name": "a", "activationId": ID, "logs": [], "start": 1, "end": 2,
            "annotations": [
                {"key": "path", "value": "guest/a"}, {"key": "waitTime", "value": 12}, {"key": "initTime", "value": 345}
            ],
            "response": {"status": status, "success": status == "success", "result": result, "size": 1},
        })
        .to_string()
    }

    fn activation(record: &str, form: Form) -> Result<Activation, PlatformError> {
        let action = ActionName::new("a").unwrap();
        let ended = Ended::parse(record.as_bytes()).unwrap();
        ended.activation(&action, form)
    }

    #[test]
    fn a_served_request_is_the_bytes_that_semirt_sealed() {
        let record = record("success", json!({"response": "AAEC/w=="}));
        let it = activation(&record, Form::Sealed).unwrap();
        assert_eq!((it.status, &it.body[..]), (200, &[0, 1, 2, 255][..]));
        assert_eq!(it.id.to_string(), ID);
        let [wait, init] = [12, 345].map(Duration::from_millis);
        assert_eq!((it.wait_time, it.init_time), (wait, Some(init)));
        // Escaped slashes are no other text.
        let escaped = record.replace("AAEC/w==", "AAEC\\/w==");
        assert_eq!(activation(&escaped, Form::Sealed).unwrap().body, it.body);
    }

    #[test]
    fn a_refusal_by_semirt_reads_as_if_it_had_been_asked_directly() {
        let error = json!({"error": {"code": "busy", "message": "no place is left"}});
        let it = activation(&record("application error", error), Form::Sealed).unwrap();
        assert_eq!(
            (it.status, it.content_type.as_deref()),
            (429, Some("application/json"))
        );
        let body: serde_json::Value = serde_json::from_slice(&it.body).unwrap();
        assert_eq!(body, json!({"error": "no place is left", "code": "busy"}));
    }

    #[test]
    fn what_the_platform_says_of_a_failed_activation_is_its_error() {
        for (status, result, said) in [
            (
                "action developer error",
                json!({"error": "did not start\u{1b}[2J"}),
                "did not start[2J",
            ),
            (
                "whisk internal error",
                json!({"error": {"deep": 1}}),
                "{\"deep\":1}",
            ),
            (
                "application error",
                json!({"error": "truncated"}),
                "truncated",
            ),
            (
                "application error",
                json!({"error": {"code": 5}}),
                "{\"code\":5}",
            ),
            (
                "success",
                json!({"response": "no base64!"}),
                "no sealed response",
            ),
            ("success", json!({"other": 1}), "no sealed response"),
            ("success", json!(null), "no sealed response"),
        ] {
            let error = activation(&record(status, result), Form::Sealed).unwrap_err();
            assert_eq!(error.code(), "activation_failed");
            let text = error.to_string();
            assert!(
                text.contains(said) && text.contains(ID) && text.contains(status),
                "{text}"
            );
        }
        let developer = |code: &str| json!({"error": {"code": code, "message": "x"}});
        let error = record("action developer error", developer("busy"));
        assert!(activation(&error, Form::Sealed).is_err());
    }

    #[test]
    fn a_whisk_value_comes_back_as_it_is_an_applications_error_too() {
        for status in ["success", "application error"] {
            let it = activation(&record(status, json!({"error": 1})), Form::Whisk).unwrap();
            assert_eq!((it.status, &it.body[..]), (200, &b"{\"error\":1}"[..]));
        }
        let failed = record("action developer error", json!({"error": "x"}));
        assert!(activation(&failed, Form::Whisk).is_err());
    }

    #[test]
    fn bodies_of_another_form_are_no_records_ids_or_lists() {
        for bad in ["", "{}", "[]", "null", "<html>", r#"{"activationId":"x"}"#] {
            assert!(Ended::parse(bad.as_bytes()).is_none(), "{bad}");
            assert!(accepted(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(Listed::parse(b"{}").is_none());
        let id = format!(r#"{{"activationId":"{ID}"}}"#);
        assert_eq!(accepted(id.as_bytes()).unwrap().to_string(), ID);
    }

    #[test]
    fn a_list_has_the_actions_that_could_be_ours() {
        let list = json!([
            {"name": "pool-0", "limits": {"memory": 512, "concurrency": 4, "timeout": 1}},
            {"name": "Not Ours", "limits": {"memory": 1}},
            {"name": "old", "limits": {"memory": 256}},
        ]);
        let listed = Listed::parse(list.to_string().as_bytes()).unwrap();
        let listed: Vec<_> = listed.into_iter().filter_map(Listed::status).collect();
        let told: Vec<_> = listed
            .iter()
            .map(|it| (it.name.as_str(), it.memory_mib, it.concurrency))
            .collect();
        assert_eq!(told, [("pool-0", 512, 4), ("old", 256, 1)]);
    }

    #[test]
    fn what_somebody_says_is_short_and_printable() {
        assert_eq!(said(br#"{"error":"a\nb","code":"1"}"#), "ab");
        assert_eq!(said(b" <html>\x1b[0m "), "<html>[0m");
        assert_eq!(said(b""), "nothing");
        assert_eq!(said(&vec![b'x'; 10_000]).len(), SAID);
        assert_eq!(said("é".repeat(10_000).as_bytes()).chars().count(), SAID);
    }
}
