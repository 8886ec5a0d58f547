//! The REST interface before an embedded platform with test instances, and a small client of it.

#![allow(dead_code, unreachable_pub)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::AUTHORIZATION;
use hyper::{HeaderMap, Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use sesemi_platform::{LocalConfig, LocalPlatform, Platform, Program, RestConfig, RestServer};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::instance::{self, until, within};

pub const USER: &str = "23bc46b1-0000-4000-8000-000000000000:a-key-for-tests";
/// The same as a header.
pub const BASIC: &str =
    "Basic MjNiYzQ2YjEtMDAwMC00MDAwLTgwMDAtMDAwMDAwMDAwMDAwOmEta2V5LWZvci10ZXN0cw==";
const BASE: &str = "/api/v1/namespaces";

pub struct Whisk {
    pub address: SocketAddr,
    pub platform: Arc<LocalPlatform>,
    pub directory: tempfile::TempDir,
    client: Client<HttpConnector, Full<Bytes>>,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
}

#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The id in the header, which every answer about an activation has.
    pub fn activation(&self) -> String {
        let id = self.headers["x-openwhisk-activation-id"].to_str().unwrap();
        assert_eq!(id.len(), 32);
        id.to_owned()
    }

    /// The status of a refusal, which has the form of one.
    pub fn refusal(&self) -> u16 {
        let body = self.json();
        let told = |key: &str| body[key].as_str().is_some_and(|text| !text.is_empty());
        assert!(told("error") && told("code"), "{body}");
        self.status
    }
}

fn image(mode: &str) -> (String, Program) {
    let (binary, args) = instance::command();
    let env = instance::environment(mode);
    (mode.to_owned(), Program { binary, args, env })
}

impl Whisk {
    pub async fn new(adjust: impl FnOnce(&mut LocalConfig, &mut RestConfig)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut local = LocalConfig::new(directory.path().join("logs"));
        let images = ["good", "refuse", "crash"].map(image).into();
        let mut rest = RestConfig::new(USER.parse().unwrap(), images);
        adjust(&mut local, &mut rest);
        let platform = Arc::new(LocalPlatform::new(local).unwrap());
        let server = RestServer::new(rest, platform.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let until_told = async { drop(stopped.await) };
        let served = server.serve(listener, Duration::from_secs(60), until_told);
        Self {
            address,
            platform,
            directory,
            client: Client::builder(TokioExecutor::new()).build_http(),
            stop: Some(stop),
            served: tokio::spawn(served),
        }
    }

    pub async fn with(self, name: &str) -> Self {
        let reply = self.put(name, json!({})).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        self
    }

    pub fn ask_to_stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    pub async fn stopped(self) {
        within(self.served, "the server to stop").await.unwrap();
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A request to a path below that of the namespaces.
    pub fn spawn(&self, method: Method, path: &str, body: impl Into<Bytes>) -> JoinHandle<Reply> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{BASE}{path}", self.url()))
            .header(AUTHORIZATION, BASIC)
            .body(Full::new(body.into()))
            .unwrap();
        tokio::spawn(send(self.client.clone(), request))
    }

    pub async fn ask(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Reply {
        self.spawn(method, path, body).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.ask(Method::GET, path, "").await
    }

    /// Makes or replaces an action of the good image, with this in its description.
    pub async fn put(&self, name: &str, more: Value) -> Reply {
        let mut body = json!({"exec": {"kind": "blackbox", "image": "good"}});
        let more = more.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(more);
        let path = format!("/_/actions/{name}?overwrite=true");
        self.ask(Method::PUT, &path, body.to_string()).await
    }

    pub fn begin(&self, name: &str, query: &str, value: Value) -> JoinHandle<Reply> {
        let path = format!("/_/actions/{name}?{query}");
        self.spawn(Method::POST, &path, value.to_string())
    }

    /// A blocking invocation of a command of the test instance.
    pub async fn command(&self, name: &str, command: &str) -> Reply {
        let value = json!({"command": command});
        self.begin(name, "blocking=true", value).await.unwrap()
    }

    /// The record of an activation, once it has ended.
    pub async fn record(&self, id: &str) -> Value {
        let path = format!("/_/activations/{id}");
        until("the record to be stored", async || {
            self.get(&path).await.status == 200
        })
        .await;
        self.get(&path).await.json()
    }

    pub async fn waiting(&self) -> usize {
        let actions = self.platform.list().await.unwrap();
        actions.iter().map(|action| action.waiting).sum()
    }

    /// What is deployed on the platform.
    pub async fn deployed(&self) -> usize {
        self.platform.list().await.unwrap().len()
    }
}

async fn send(client: Client<HttpConnector, Full<Bytes>>, request: Request<Full<Bytes>>) -> Reply {
    let exchange = async {
        let (head, body) = client.request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
        }
    };
    within(exchange, "an answer").await
}
