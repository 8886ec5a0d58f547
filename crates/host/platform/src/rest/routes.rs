//! Which request does what. Nothing of a request is looked at before its credentials are.

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use hyper::header::{AUTHORIZATION, CONNECTION, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::json as value;
use tokio::time::timeout;

use super::answer::json;
use super::config::MIN_MEMORY_MIB;
use super::entity::{EntityName, KIND};
use super::failure::Failure;
use super::invoke::{Manner, invoke};
use super::ledger::Wanted;
use super::query::Query;
use super::{Shared, config, millis};
use crate::ActivationId;
use crate::http::{self, Answer, BodyError};

/// What every path begins with.
const BASE: &str = "/api/v1/namespaces";
/// Longest path that is looked into, in bytes: the longest name, percent-encoded, and what is around it.
const MAX_PATH: usize = 2048;

/// Answers any request; there is nothing it fails on.
pub(super) async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Answer {
    let has_body = !request.body().is_end_stream();
    match answered(&shared, request).await {
        Ok(answer) => answer,
        Err(failure) => {
            let id = shared.platform.next_activation();
            tracing::debug!(request = %id, error = %failure, "refused");
            let mut answer = failure.answer(id);
            if has_body && failure.comes_before_the_body() {
                // What is left of the body makes the connection useless; a client that is not told sends its next request there.
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(CONNECTION, close);
            }
            answer
        }
    }
}

async fn answered(shared: &Arc<Shared>, request: Request<Incoming>) -> Result<Answer, Failure> {
    authorize(shared, request.headers())?;
    let (head, body) = request.into_parts();
    let path = Path::parse(head.uri.path())?;
    path.is_in(&shared.config.namespace)?;
    let query = Query::new(head.uri.query());
    let what: Vec<&str> = path.what.iter().map(String::as_str).collect();
    match what[..] {
        ["limits"] => get(&head.method, || Ok(limits(shared))),
        [] => get(&head.method, || {
            let namespaces = [&shared.config.namespace];
            match path.namespace {
                None => Ok(json(StatusCode::OK, &namespaces)),
                Some(_) => Err(Failure::NoSuchPath),
            }
        }),
        ["packages" | "triggers" | "rules"] => get(&head.method, || {
            let none: [(); 0] = [];
            Ok(json(StatusCode::OK, &none))
        }),
        ["actions"] => get(&head.method, || shared.list_actions(query)),
        ["actions", name] => {
            let name = EntityName::new(name)?;
            action(shared, &head.method, &name, query, body).await
        }
        ["actions", _, _] => Err(Failure::NoPackages),
        ["activations"] => get(&head.method, || activations(shared, query)),
        ["activations", id] => get(&head.method, || activation(shared, id, None)),
        ["activations", id, part @ ("result" | "logs")] => {
            get(&head.method, || activation(shared, id, Some(part)))
        }
        _ => Err(Failure::NoSuchPath),
    }
}

/// What follows [`BASE`], decoded part by part: a slash within a part separates nothing.
struct Path {
    namespace: Option<String>,
    what: Vec<String>,
}

impl Path {
    fn parse(path: &str) -> Result<Self, Failure> {
        if path.len() > MAX_PATH {
            return Err(Failure::NoSuchPath);
        }
        let rest = path.strip_prefix(BASE).ok_or(Failure::NoSuchPath)?;
        if !rest.is_empty() && !rest.starts_with('/') {
            return Err(Failure::NoSuchPath);
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let decode = |part: &str| match percent_decode_str(part).decode_utf8() {
            Ok(text) => Ok(text.into_owned()),
            Err(_) => Err(Failure::NoSuchPath),
        };
        let parts = rest.split('/').skip(1);
        let mut parts: Vec<String> = parts.map(decode).collect::<Result<_, _>>()?;
        let what = parts.split_off(parts.len().min(1));
        Ok(Self {
            namespace: parts.pop(),
            what,
        })
    }

    fn is_in(&self, ours: &str) -> Result<(), Failure> {
        match &self.namespace {
            Some(other) if other != "_" && other != ours => {
                Err(Failure::ForeignNamespace(ours.to_owned()))
            }
            _ => Ok(()),
        }
    }
}

fn authorize(shared: &Shared, headers: &HeaderMap) -> Result<(), Failure> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    match (given.next(), given.next()) {
        (Some(header), None) if shared.config.credentials.accept(header) => Ok(()),
        _ => Err(Failure::Unauthorized),
    }
}

fn get(
    method: &Method,
    answer: impl FnOnce() -> Result<Answer, Failure>,
) -> Result<Answer, Failure> {
    if method != Method::GET {
        return Err(Failure::MethodNotAllowed("GET"));
    }
    answer()
}

async fn action(
    shared: &Arc<Shared>,
    method: &Method,
    name: &EntityName,
    query: Query<'_>,
    body: Incoming,
) -> Result<Answer, Failure> {
    match *method {
        Method::GET => shared.get_action(name),
        Method::DELETE => shared.delete_action(name).await,
        Method::PUT => {
            let overwrite = query.flag("overwrite")?;
            let body = read(shared, body).await?;
            shared.put_action(name, overwrite, &body).await
        }
        Method::POST => {
            let manner = Manner::of(query, shared.config.max_blocking)?;
            let body = read(shared, body).await?;
            invoke(shared, name, manner, &body).await
        }
        _ => Err(Failure::MethodNotAllowed("GET, PUT, POST, DELETE")),
    }
}

async fn read(shared: &Shared, body: Incoming) -> Result<Bytes, Failure> {
    let config = &shared.config;
    match timeout(
        config.body_timeout,
        http::read(body, config.max_payload_bytes),
    )
    .await
    {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(BodyError::TooLarge(limit))) => Err(Failure::TooLarge(limit)),
        Ok(Err(error @ BodyError::Broken(_))) => Err(Failure::BadRequest(error.to_string())),
        Err(_) => Err(Failure::TooSlow),
    }
}

fn limits(shared: &Shared) -> Answer {
    let config = &shared.config;
    let body = value!({
        "concurrentInvocations": config.max_activations,
        "allowedKinds": [KIND],
        "storeActivations": true,
        "maxParameterSize": config.max_payload_bytes,
        "minActionMemory": MIN_MEMORY_MIB,
        "maxActionMemory": config.max_memory_mib,
        "minActionTimeout": millis(config::MIN_TIMEOUT),
        "maxActionTimeout": millis(config.max_timeout),
        "minActionConcurrency": 1,
        "maxActionConcurrency": config.max_concurrency,
    });
    json(StatusCode::OK, &body)
}

fn activations(shared: &Shared, query: Query<'_>) -> Result<Answer, Failure> {
    let page = query.page()?;
    let wanted = Wanted {
        name: query.text("name")?,
        since: query.number("since")?,
        upto: query.number("upto")?,
    };
    let whole = query.flag("docs")?;
    let records = page.of(shared.ledger.list(&wanted).into_iter());
    let told = records.iter().map(|record| match whole {
        true => record.view(),
        false => record.summary(),
    });
    Ok(json(StatusCode::OK, &told.collect::<Vec<_>>()))
}

fn activation(shared: &Shared, id: &str, part: Option<&str>) -> Result<Answer, Failure> {
    let id: ActivationId = id
        .parse()
        .map_err(|error: crate::InvalidActivationId| Failure::BadRequest(error.to_string()))?;
    let record = shared.ledger.get(id).ok_or(Failure::NoSuchActivation)?;
    Ok(match part {
        Some("result") => json(StatusCode::OK, &record.response()),
        Some(_) => json(StatusCode::OK, &value!({"logs": []})),
        None => json(StatusCode::OK, &record.view()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> Option<(Option<String>, Vec<String>)> {
        let path = Path::parse(path).ok()?;
        Some((path.namespace, path.what))
    }

    #[test]
    fn a_path_is_taken_apart_before_it_is_decoded() {
        let what = |parts: &[&str]| parts.iter().map(|it| (*it).to_owned()).collect();
        let ours = Some("_".to_owned());
        assert_eq!(parse(BASE), Some((None, vec![])));
        assert_eq!(
            parse("/api/v1/namespaces/_/actions/"),
            Some((ours.clone(), what(&["actions"])))
        );
        assert_eq!(
            parse("/api/v1/namespaces/_/actions/a%2Fb%20c"),
            Some((ours, what(&["actions", "a/b c"])))
        );
        for bad in [
            "/",
            "/api/v1/namespacesx",
            "/api/v2/namespaces",
            "/api/v1/namespaces/%ff",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(parse(&format!("{BASE}/{}", "x".repeat(MAX_PATH))), None);
    }
}
