//! A real gateway on a real socket, with the local platform and the test instance behind it, and a small client.

#![allow(dead_code, unreachable_pub)]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use sesemi_fnpacker::{Config, Listening, ServeError, serve_local};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::instance::{self, until, within};

pub struct Rig {
    pub address: SocketAddr,
    pub directory: tempfile::TempDir,
    client: Client<HttpConnector, Full<Bytes>>,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<(), ServeError>>,
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

    /// Status and code of a refusal.
    pub fn refusal(&self) -> (u16, String) {
        let body = self.json();
        assert!(
            body["error"]
                .as_str()
                .is_some_and(|sentence| !sentence.is_empty()),
            "{body}"
        );
        (self.status, body["code"].as_str().unwrap().to_owned())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

pub fn config(directory: &std::path::Path, mode: &str) -> Config {
    let (binary, args) = instance::command();
    let mut config = Config::new(binary, directory.join("logs"));
    config.listen.set_port(0);
    config.pool.image.args = args;
    config.pool.image.env = instance::environment(mode);
    config
}

impl Rig {
    pub async fn new(adjust: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(directory.path(), "good");
        adjust(&mut config);
        let (listening, address) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let announce = |at: Listening| listening.send(at.gateway).unwrap();
        let served = tokio::spawn(serve_local(config, announce, async { drop(stopped.await) }));
        let address = address.await.unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self {
            address,
            directory,
            client,
            stop: Some(stop),
            served,
        }
    }

    pub fn ask_to_stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    pub async fn stopped(self) {
        within(self.served, "the gateway to stop")
            .await
            .unwrap()
            .unwrap();
    }

    pub fn spawn(&self, headers: &[(&str, &str)], body: impl Into<Bytes>) -> JoinHandle<Reply> {
        let mut request = Request::post(format!("http://{}/v1/infer", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        tokio::spawn(send(self.client.clone(), request))
    }

    pub async fn infer(&self, model: &str, body: impl Into<Bytes>) -> Reply {
        self.spawn(&[("sesemi-model", model)], body).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Reply {
        let request = Request::get(format!("http://{}{path}", self.address))
            .body(Full::default())
            .unwrap();
        send(self.client.clone(), request).await
    }

    pub async fn status(&self) -> Value {
        self.get("/v1/status").await.json()
    }

    pub async fn in_flight(&self) -> u64 {
        self.status().await["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["in_flight"].as_u64().unwrap())
            .sum()
    }

    pub async fn until_queued(&self, length: u64) {
        until("the queue to have its length", async || {
            self.status().await["queue"]["length"] == length
        })
        .await;
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
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
    tokio::time::timeout(Duration::from_secs(60), exchange)
        .await
        .expect("an answer")
}

/// Everything that the peer sends until it closes; a reset counts as a close.
pub async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = within(
        stream.read_to_end(&mut bytes),
        "the connection to be closed",
    )
    .await;
    String::from_utf8_lossy(&bytes).into_owned()
}
