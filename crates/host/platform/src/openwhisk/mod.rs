//! Any OpenWhisk as a [`Platform`], over its REST interface and with no change to it: an action is a container image (kind
//! `blackbox`), a sealed request goes as `{"request": base64}` and comes back as `{"response": base64}`, which is how SeMIRT answers
//! `/run`.
//!
//! An invocation is a blocking one. OpenWhisk waits for it only so long (60 s by default) and then answers with the activation's id;
//! from there on the record is asked for, at intervals that are a tenth of the time gone by, so that waiting adds a tenth to a
//! latency at most, and never more than a second.
//!
//! What OpenWhisk cannot carry: headers, so that an instance's spans do not hang below the caller's ([`Invocation::trace`] is not
//! sent); the number of an instance ([`Activation::instance`] is `None`); and bodies above its payload limit, which are refused here,
//! before they are sent, because inputs by reference have no such limit.

mod answer;
mod client;
mod config;

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use hyper::Method;
use serde_json::json;
use tokio::time::{sleep_until, timeout_at};

use self::answer::{Ended, Listed};
use self::client::{Controller, Reply};
pub use self::config::OpenWhiskConfig;
use crate::{
    ActionName, ActionSpec, ActionStatus, Activation, ActivationId, Container, Form, Image,
    Invocation, Limits, Platform, PlatformError, Stage,
};

/// Entries of one page of a list, the most that OpenWhisk gives.
const PAGE: usize = 200;
/// Pages that are read: a namespace with more actions is not ours.
const PAGES: usize = 50;
/// Shortest and longest time between two questions for a record.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];
/// Questions for a record that may fail in a row.
const FAILURES: u32 = 5;
/// What encloses a sealed request's base64.
const ENVELOPE: [&str; 2] = ["{\"request\":\"", "\"}"];

/// A namespace of an OpenWhisk.
#[derive(Debug)]
pub struct OpenWhisk {
    config: OpenWhiskConfig,
    controller: Controller,
}

impl OpenWhisk {
    /// Prepares to talk to it. Nothing is sent yet.
    ///
    /// # Errors
    /// [`PlatformError::Setup`] if the address or the namespace is none, or if its certificate could not be verified on this machine.
    pub fn new(config: OpenWhiskConfig) -> Result<Self, PlatformError> {
        config
            .check()
            .map_err(|problem| PlatformError::Setup { problem })?;
        let controller = Controller::new(&config.address, &config.namespace, &config.credentials)?;
        Ok(Self { config, controller })
    }

    /// The most that a request may have so that it fits in base64.
    fn most(&self) -> usize {
        let around: usize = ENVELOPE.iter().map(|part| part.len()).sum();
        self.config.max_payload_bytes.saturating_sub(around) / 4 * 3
    }

    fn body(&self, invocation: &Invocation) -> Result<Bytes, PlatformError> {
        let size = invocation.body.len();
        let limit = match invocation.form {
            Form::Sealed => self.most(),
            Form::Whisk => self.config.max_payload_bytes,
        };
        if size > limit {
            return Err(PlatformError::RequestTooLarge { size, limit });
        }
        if invocation.form == Form::Whisk {
            return Ok(invocation.body.clone());
        }
        let [front, end] = ENVELOPE;
        let mut body = String::with_capacity(size.div_ceil(3) * 4 + front.len() + end.len());
        body.push_str(front);
        BASE64.encode_string(&invocation.body, &mut body);
        body.push_str(end);
        Ok(body.into())
    }

    /// A request that is none of an invocation.
    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Reply, PlatformError> {
        let limit = self.config.request_timeout;
        let asked = tokio::time::timeout(limit, self.controller.ask(method, path, body));
        asked.await.unwrap_or_else(|_| {
            Err(self
                .controller
                .unreachable(format!("no answer within {limit:?}")))
        })
    }

    /// The record of an activation, as soon as there is one.
    async fn wait_for(
        &self,
        id: ActivationId,
        action: &ActionName,
        invocation: &Invocation,
        began: Instant,
    ) -> Result<Activation, PlatformError> {
        let path = format!("/activations/{id}");
        let mut failures = 0;
        loop {
            sleep_until((Instant::now() + pause(began.elapsed())).into()).await;
            let asked = self.controller.ask(Method::GET, &path, Bytes::new()).await;
            let reply = match asked {
                Ok(reply) => reply,
                Err(error) if failures == FAILURES => return Err(error),
                Err(_) => {
                    failures += 1;
                    continue;
                }
            };
            match reply.status {
                200 => return self.ended(&reply, action, invocation),
                // Not stored yet.
                404 => failures = 0,
                // A controller in trouble may be well again.
                429 | 500.. if failures < FAILURES => failures += 1,
                _ => return Err(self.controller.refused(&reply, Some(action))),
            }
        }
    }

    fn ended(
        &self,
        reply: &Reply,
        action: &ActionName,
        invocation: &Invocation,
    ) -> Result<Activation, PlatformError> {
        match Ended::parse(&reply.body) {
            Some(ended) => ended.activation(action, invocation.form),
            None => Err(self.controller.refused(reply, Some(action))),
        }
    }

    async fn run(
        &self,
        action: &ActionName,
        invocation: &Invocation,
        body: Bytes,
    ) -> Result<Activation, PlatformError> {
        let began = Instant::now();
        let path = format!("/actions/{action}?blocking=true&result=false");
        let reply = self.controller.ask(Method::POST, &path, body).await?;
        match reply.status {
            202 => {
                let id = answer::accepted(&reply.body);
                let id = id.ok_or_else(|| self.controller.refused(&reply, Some(action)))?;
                self.wait_for(id, action, invocation, began).await
            }
            // A failed activation has a record as well; a failed gateway in between has none.
            200 | 500 | 502 => self.ended(&reply, action, invocation),
            _ => Err(self.controller.refused(&reply, Some(action))),
        }
    }
}

/// How long to wait before a record is asked for, this long after the invocation began.
fn pause(gone: Duration) -> Duration {
    let [shortest, longest] = PAUSES;
    (gone / 10).clamp(shortest, longest)
}

impl Platform for OpenWhisk {
    async fn deploy(&self, spec: ActionSpec) -> Result<(), PlatformError> {
        let action = spec.name.clone();
        let path = match self.config.overwrite {
            true => format!("/actions/{action}?overwrite=true"),
            false => format!("/actions/{action}"),
        };
        let reply = self.ask(Method::PUT, &path, description(&spec)?).await?;
        match reply.status {
            200 => Ok(()),
            409 => Err(PlatformError::AlreadyExists { action }),
            400 => Err(PlatformError::InvalidSpec {
                action,
                problem: reply.said(),
            }),
            _ => Err(self.controller.refused(&reply, None)),
        }
    }

    async fn invoke(
        &self,
        action: &ActionName,
        invocation: Invocation,
    ) -> Result<Activation, PlatformError> {
        let body = self.body(&invocation)?;
        let running = self.run(action, &invocation, body);
        let ran = timeout_at(invocation.deadline.into(), running).await;
        // Where it was then, OpenWhisk does not say.
        ran.unwrap_or(Err(PlatformError::DeadlineExceeded {
            stage: Stage::Running,
        }))
    }

    async fn list(&self) -> Result<Vec<ActionStatus>, PlatformError> {
        let mut actions = Vec::new();
        for page in 0..PAGES {
            let path = format!("/actions?limit={PAGE}&skip={}", page * PAGE);
            let reply = self.ask(Method::GET, &path, Bytes::new()).await?;
            let listed = (reply.status == 200).then(|| Listed::parse(&reply.body));
            let listed = listed
                .flatten()
                .ok_or_else(|| self.controller.refused(&reply, None))?;
            let is_last = listed.len() < PAGE;
            actions.extend(listed.into_iter().filter_map(Listed::status));
            if is_last {
                break;
            }
        }
        actions.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(actions)
    }

    async fn delete(&self, action: &ActionName) -> Result<(), PlatformError> {
        let path = format!("/actions/{action}");
        let reply = self.ask(Method::DELETE, &path, Bytes::new()).await?;
        match reply.status {
            200 => Ok(()),
            _ => Err(self.controller.refused(&reply, Some(action))),
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            user_memory_mib: self.config.user_memory_mib,
            // OpenWhisk bounds invocations by its own limits, and says so with 429.
            queue_capacity: usize::MAX,
            max_request_bytes: self.most(),
            max_response_bytes: self.most(),
        }
    }
}

/// The body of the `PUT` that deploys an action.
fn description(spec: &ActionSpec) -> Result<Bytes, PlatformError> {
    let unfit = |problem: &str| PlatformError::InvalidSpec {
        action: spec.name.clone(),
        problem: problem.to_owned(),
    };
    let image = match &spec.image {
        Image::Container(Container {
            reference,
            args,
            env,
        }) if args.is_empty() && env.is_empty() => reference,
        Image::Container(_) => {
            return Err(unfit(
                "OpenWhisk gives an image neither arguments nor environment: put them into the image",
            ));
        }
        Image::Program(_) => {
            return Err(unfit(
                "its image is a program of this host, and OpenWhisk runs containers",
            ));
        }
    };
    let timeout = u64::try_from(spec.timeout.as_millis()).unwrap_or(u64::MAX);
    let body = json!({
        "exec": {"kind": "blackbox", "image": image},
        "limits": {
            "timeout": timeout,
            "memory": spec.memory_mib,
            "concurrency": spec.concurrency,
            // What instances print is their operator's to read: not collected, an activation ends sooner, and several may run at once.
            "logs": 0,
        },
        // SeMIRT calls nobody as its caller.
        "annotations": [{"key": "provide-api-key", "value": false}],
    });
    Ok(body.to_string().into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn openwhisk() -> OpenWhisk {
        let credentials = "user:key".parse().unwrap();
        OpenWhisk::new(OpenWhiskConfig::new("http://127.0.0.1:1", credentials)).unwrap()
    }

    fn invocation(size: usize, form: Form) -> Invocation {
        Invocation {
            body: vec![7; size].into(),
            form,
            deadline: Instant::now(),
            trace: None,
        }
    }

    fn container() -> Container {
        Container {
            reference: "registry.example/semirt@sha256:0".to_owned(),
            args: Vec::new(),
            env: BTreeMap::new(),
        }
    }

    fn spec(image: Image) -> ActionSpec {
        ActionSpec {
            name: ActionName::new("a").unwrap(),
            image,
            memory_mib: 512,
            concurrency: 4,
            timeout: Duration::from_millis(1500),
            entity: None,
        }
    }

    #[test]
    fn a_request_fits_if_its_base64_does() {
        let openwhisk = openwhisk();
        let most = openwhisk.most();
        let body = openwhisk.body(&invocation(most, Form::Sealed)).unwrap();
        assert!(
            body.len() <= 1 << 20 && body.len() > (1 << 20) - 8,
            "{}",
            body.len()
        );
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let sealed = BASE64.decode(json["request"].as_str().unwrap()).unwrap();
        assert_eq!(sealed, vec![7; most]);
        let refused = openwhisk
            .body(&invocation(most + 1, Form::Sealed))
            .unwrap_err();
        assert_eq!(refused.code(), "request_too_large");
        assert!(refused.hint().contains("reference"));
        assert_eq!(openwhisk.limits().max_request_bytes, most);
        assert!(openwhisk.body(&invocation(1 << 20, Form::Whisk)).is_ok());
        assert!(
            openwhisk
                .body(&invocation((1 << 20) + 1, Form::Whisk))
                .is_err()
        );
    }

    #[test]
    fn asking_for_a_record_adds_a_tenth_to_its_latency_or_a_second() {
        let millis = Duration::from_millis;
        assert_eq!(pause(millis(0)), millis(50));
        assert_eq!(pause(millis(2000)), millis(200));
        assert_eq!(pause(millis(100_000)), millis(1000));
        // However long it takes: from one question to the next, never more than a tenth more than it took until then.
        let mut gone = millis(500);
        while gone < millis(9000) {
            let next = gone + pause(gone);
            assert!(next * 10 <= gone * 11);
            gone = next;
        }
    }

    #[test]
    fn an_action_is_described_as_openwhisk_wants_it() {
        let body = description(&spec(Image::Container(container()))).unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["exec"]["kind"], "blackbox");
        assert_eq!(body["exec"]["image"], "registry.example/semirt@sha256:0");
        assert_eq!(
            body["limits"],
            json!({"timeout": 1500, "memory": 512, "concurrency": 4, "logs": 0})
        );
        assert_eq!(
            body["annotations"],
            json!([{"key": "provide-api-key", "value": false}])
        );
    }

    #[test]
    fn what_openwhisk_cannot_run_is_refused_with_a_reason() {
        let program = crate::Program {
            binary: "/bin/true".into(),
            args: Vec::new(),
            env: BTreeMap::new(),
        };
        let with_args = Container {
            args: vec!["serve".to_owned()],
            ..container()
        };
        for (image, word) in [
            (Image::Program(program), "containers"),
            (Image::Container(with_args), "arguments"),
        ] {
            let error = description(&spec(image)).unwrap_err();
            assert!(
                error.code() == "invalid_spec" && error.to_string().contains(word),
                "{error}"
            );
        }
    }
}
