//! Everything that the host's processes received, logged or stored during real use is searched for plaintext: feature rows,
//! predictions, weights, tensor names, keys. None may be there, in any form that a careless program would leave it in.
//!
//! The search is tried first on planted secrets, and the keys that it searches for are shown to be the real ones, so that it
//! cannot pass by looking for the wrong thing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use sesemi::{Client, Grant, Identity, IsolationChange, ModelRef, Tensor};
use sesemi_cli::demo::{data, trust};
use sesemi_cli::stack::{Facts, Stack};
use sesemi_protocol::envelope::parse_request;
use sesemi_protocol::package::{Package, manifest_digest, object_path};
use sesemi_protocol::{SecretKey, kdf};
use support::{get, input, push, rows, scope, semirt, start};

/// Something that must not be found, and what it is.
struct Needle {
    what: String,
    bytes: Vec<u8>,
}

fn needle(what: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Needle {
    Needle {
        what: what.into(),
        bytes: bytes.into(),
    }
}

/// A key raw, in hexadecimal of both cases, and in base64.
fn key_forms(what: &str, key: &[u8; 32]) -> Vec<Needle> {
    let base64 = base64::engine::general_purpose::STANDARD_NO_PAD.encode(key);
    // The last characters of base64 depend on what follows; the first forty do not.
    let base64: String = base64.chars().take(40).collect();
    vec![
        needle(format!("{what}, raw"), key.to_vec()),
        needle(format!("{what}, hexadecimal"), hex::encode(key)),
        needle(format!("{what}, capitals"), hex::encode_upper(key)),
        needle(format!("{what}, base64"), base64),
    ]
}

/// Any two neighbouring values of a row, as floats of either size and as text.
fn row_forms(row: &data::Row) -> Vec<Needle> {
    let mut needles = Vec::new();
    for pair in row.features.windows(2) {
        let f32s: Vec<u8> = pair.iter().flat_map(|v| v.to_le_bytes()).collect();
        let f64s: Vec<u8> = pair
            .iter()
            .flat_map(|v| f64::from(*v).to_le_bytes())
            .collect();
        if pair.iter().any(|value| *value != 0.0) {
            needles.push(needle("a feature row as FP32", f32s));
            needles.push(needle("a feature row as FP64", f64s));
            needles.push(needle(
                "a feature row as text",
                format!("{},{}", pair[0], pair[1]),
            ));
            needles.push(needle(
                "a feature row as JSON",
                format!("{}, {}", pair[0], pair[1]),
            ));
        }
    }
    needles
}

/// All that the host's processes had: name and bytes.
struct Haystack(Vec<(String, Vec<u8>)>);

impl Haystack {
    fn folder(folder: &Path) -> Self {
        let mut all = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    all.push((path.display().to_string(), std::fs::read(&path).unwrap()));
                }
            }
        }
        Self(all)
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    /// What was found, and where.
    fn search(&self, needles: &[Needle]) -> Vec<String> {
        let mut found = Vec::new();
        for (name, bytes) in &self.0 {
            for needle in needles {
                if contains(bytes, &needle.bytes) {
                    found.push(format!("{} in {name}", needle.what));
                }
            }
        }
        found
    }
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    let (first, length) = (needle[0], needle.len());
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == first) {
        let start = from + at;
        if bytes.len() - start < length {
            return false;
        }
        if bytes[start..start + length] == *needle {
            return true;
        }
        from = start + 1;
    }
    false
}

/// Passes a connection on and keeps every byte of both directions, as a network that the host owns may do.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Vec<u8>>>);

impl Wire {
    fn before(&self, target: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let wire = self.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(target) else {
                    continue;
                };
                wire.copy(client.try_clone().unwrap(), server.try_clone().unwrap());
                wire.copy(server, client);
            }
        });
        address
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream) {
        let record = self.0.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                record.lock().unwrap().extend_from_slice(&buffer[..n]);
                if to.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
    }
}

/// One principal whose secrets the test knows.
struct Known {
    client: Client,
    seed: [u8; 32],
}

async fn join_known(folder: &Path, name: &str, facts: &Facts, keyservice: SocketAddr) -> Known {
    let path = folder.join(name);
    let identity = Identity::generate().unwrap();
    identity.save(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let seed = hex::decode(text.lines().nth(1).unwrap()).unwrap();
    std::fs::remove_file(&path).unwrap();
    let client = Client::connect(identity, keyservice, trust(facts).unwrap())
        .await
        .unwrap();
    Known {
        client,
        seed: seed.try_into().unwrap(),
    }
}

fn derived(
    seed: &[u8; 32],
    salt: &[u8],
    purpose: &str,
    model: &dyn std::fmt::Display,
) -> SecretKey {
    kdf::derive(
        seed,
        salt,
        format!("sesemi/v1/{purpose}\n{model}").as_bytes(),
    )
    .unwrap()
}

fn tapped(stack: &Stack, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(stack.tap()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|e| e == ending))
        .collect()
}

fn http_body(message: &[u8]) -> &[u8] {
    let head = message.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    &message[head + 4..]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_plaintext_key_or_tensor_name_is_in_anything_that_the_host_had() {
    let (folder, stack) = start().await;
    let facts = &stack.facts;
    let (to_keyservice, to_gateway) = (Wire::default(), Wire::default());
    let keyservice = to_keyservice.before(support::keyservice(facts));
    let gateway = facts.gateway.trim_start_matches("http://").parse().unwrap();
    let gateway = format!("http://{}", to_gateway.before(gateway));

    let mut owner = join_known(folder.path(), "owner", facts, keyservice).await;
    let mut user = join_known(folder.path(), "user", facts, keyservice).await;
    let model = push(facts, &mut owner.client).await;
    let code = semirt(facts);
    owner
        .client
        .grant(Grant::of(&model, user.client.id(), code))
        .await
        .unwrap();
    let scope = scope(&model);
    user.client
        .deposit_key(&scope, [code], IsolationChange::default())
        .await
        .unwrap();

    let rows = rows();
    let mut outputs = Vec::new();
    for row in rows.iter().take(40) {
        let inference = user
            .client
            .infer(&gateway, model.clone(), &[input(row)])
            .await
            .unwrap();
        outputs.push(inference.outputs[0].clone());
    }
    // Errors are where secrets like to leak: a wrong shape, a wrong name, a tampered message, a stranger.
    let narrow = Tensor::fp32("features", &[1, 2], &rows[0].features[..2]).unwrap();
    user.client
        .infer(&gateway, model.clone(), &[narrow])
        .await
        .unwrap_err();
    let misnamed = Tensor::fp32("probabilities", &[1, 30], &rows[1].features).unwrap();
    user.client
        .infer(&gateway, model.clone(), &[misnamed])
        .await
        .unwrap_err();
    let flip = |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1;
    user.client
        .infer_with(&gateway, model.clone(), &[input(&rows[2])], flip)
        .await
        .unwrap_err();
    owner
        .client
        .infer(&gateway, model.clone(), &[input(&rows[3])])
        .await
        .unwrap_err();

    let model_key = derived(&owner.seed, b"", "model-key", &model);
    let request_key = derived(&user.seed, &1u32.to_be_bytes(), "request-key", &model.model);
    these_are_the_real_keys(&stack, &model, &model_key, &request_key);

    let mut needles = Vec::new();
    needles.extend(key_forms("the model key", model_key.expose()));
    needles.extend(key_forms("the request key", request_key.expose()));
    needles.extend(key_forms("the owner's identity", &owner.seed));
    needles.extend(key_forms("the user's identity", &user.seed));
    needles.extend(rows.iter().take(40).flat_map(row_forms));
    for output in &outputs {
        let values = output.to_fp32().unwrap();
        if values.iter().all(|value| (1e-6..0.999_999).contains(value)) {
            needles.push(needle("a prediction", output.data.clone()));
        }
    }
    needles.push(needle("the input's name", "features"));
    needles.push(needle("the output's name", "probabilities"));
    needles.push(needle("a feature's name", "mean_radius"));
    needles.extend(
        data::MODEL
            .chunks_exact(64)
            .filter(|c| c.iter().any(|b| *b != 0))
            .map(|c| needle("the model", c)),
    );

    let metrics = [
        format!("{}/metrics", facts.gateway),
        format!("{}/v1/status", facts.gateway),
        format!("{}/metrics", facts.admin),
    ]
    .map(|url| (url.clone(), get(&url)));
    let processes = process_facts(&stack);
    trusted_processes_gave_up_their_rights(&stack);
    // What a connection received last stays in its buffer for as long as it is open.
    drop((owner, user));
    let keys = [&model_key, &request_key].map(|key| needle("a key", *key.expose()));
    let known = needle("the owner's id", model.model.owner.0);
    no_key_is_in_reach_in_the_memory_of_keyservice(&stack, &keys, known).await;
    stack.stop().await.unwrap();

    let mut haystack = Haystack::folder(&folder.path().join("state"));
    haystack.0.extend(metrics);
    haystack.0.extend(processes);
    haystack.0.push((
        "the network to KeyService".into(),
        to_keyservice.0.lock().unwrap().clone(),
    ));
    haystack.0.push((
        "the network to the gateway".into(),
        to_gateway.0.lock().unwrap().clone(),
    ));
    the_search_finds_what_is_there(&haystack, &needles);
    assert_eq!(haystack.search(&needles), Vec::<String>::new());
}

/// The keys that are searched for open the stored package and a request that the host wrote down.
fn these_are_the_real_keys(
    stack: &Stack,
    model: &ModelRef,
    model_key: &SecretKey,
    request_key: &SecretKey,
) {
    let package = std::fs::read(stack.facts.store.join(object_path(model))).unwrap();
    let digest = manifest_digest(&data::manifest()).unwrap();
    let opened = Package::open(model_key, model, &digest, &package).unwrap();
    assert!(opened.forms[0][0].as_slice() == data::MODEL);

    let requests = tapped(stack, "request");
    assert!(requests.len() >= 40, "{}", requests.len());
    let opened = requests.iter().filter(|path| {
        let message = std::fs::read(path).unwrap();
        let body = http_body(&message);
        parse_request(body)
            .unwrap()
            .open(body.to_vec(), request_key)
            .is_ok()
    });
    assert!(opened.count() >= 40);
}

/// Plants each secret into a copy of each source and sees it found.
fn the_search_finds_what_is_there(haystack: &Haystack, needles: &[Needle]) {
    assert!(haystack.0.len() > 40, "{} sources", haystack.0.len());
    assert!(haystack.bytes() > 100_000, "{} bytes", haystack.bytes());
    for source in [
        "state/store",
        "state/keyservice",
        "state/logs/fnpacker",
        "state/tap",
        "state/traces/sesemi-keyservice",
        "state/traces/sesemi-semirt",
        "state/traces/sesemi-fnpacker",
        "the network",
        "/metrics",
    ] {
        assert!(
            haystack
                .0
                .iter()
                .any(|(name, bytes)| name.contains(source) && !bytes.is_empty()),
            "{source}"
        );
    }
    for needle in needles {
        let mut planted = vec![0x55; 1000];
        planted.extend_from_slice(&needle.bytes);
        planted.extend_from_slice(&[0x55; 10]);
        let planted = Haystack(vec![("planted".into(), planted)]);
        assert_eq!(
            planted.search(std::slice::from_ref(needle)).len(),
            1,
            "{}",
            needle.what
        );
    }
}

/// Command lines and environments of all processes of the stack: the host sees them.
fn process_facts(stack: &Stack) -> Vec<(String, Vec<u8>)> {
    let state = stack.logs().parent().unwrap().display().to_string();
    let mut facts = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        if contains(&line, state.as_bytes()) {
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            facts.push((format!("{} cmdline", entry.path().display()), line));
            facts.push((format!("{} environ", entry.path().display()), environment));
        }
    }
    assert!(
        facts.len() >= 6,
        "KeyService, FnPacker and an instance: {}",
        facts.len()
    );
    facts
}

/// The folder in /proc of each process in the simulated TEE, and whether it is KeyService.
fn trusted_processes(stack: &Stack) -> Vec<(PathBuf, bool)> {
    let state = stack.logs().parent().unwrap().display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
        let ours = contains(&line, state.as_bytes());
        if ours && program.ends_with(b"sesemi-keyservice") {
            found.push((entry.path(), true));
        }
        if ours && program.ends_with(b"sesemi-semirt") {
            found.push((entry.path(), false));
        }
    }
    assert!(found.len() >= 2, "KeyService and an instance: {found:?}");
    found
}

fn trusted_processes_gave_up_their_rights(stack: &Stack) {
    for (process, _) in trusted_processes(stack) {
        let status = std::fs::read_to_string(process.join("status")).unwrap();
        assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");
        assert!(status.contains("Seccomp:\t2\n"), "{status}");
        let limits = std::fs::read_to_string(process.join("limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core"));
        let words: Vec<_> = core.unwrap().split_whitespace().collect();
        assert_eq!(words[4..6], ["0", "0"], "{limits}");
        // The kernel gives what /proc says of a process that is not dumpable to root.
        let owner = std::fs::metadata(process.join("environ")).unwrap().uid();
        assert_eq!(owner, 0, "{}", process.display());
    }
}

/// Reads all that root can read of KeyService's memory. Who is not root is refused, which is asserted instead.
/// `known` is in the same records as the keys, and no secret: where it is found, keys would be.
async fn no_key_is_in_reach_in_the_memory_of_keyservice(
    stack: &Stack,
    keys: &[Needle],
    known: Needle,
) {
    let processes = trusted_processes(stack);
    let keyservice = processes.iter().find(|(_, keyservice)| *keyservice);
    let (process, _) = keyservice.unwrap();
    if std::fs::File::open(process.join("mem")).is_err() {
        assert_ne!(std::fs::metadata("/proc/self").unwrap().uid(), 0);
        println!("skipped: only root can look into KeyService's memory");
        return;
    }
    // KeyService notices in its own time that the connections have ended.
    let mut found = Vec::new();
    for _ in 0..50 {
        let (memory, hidden) = memory(process);
        assert!(!memory.search(std::slice::from_ref(&known)).is_empty());
        if hidden == 0 {
            println!("skipped: this kernel hides no memory, so keys are in reach of root");
            return;
        }
        found = memory.search(keys);
        if found.is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    panic!("{found:?}");
}

/// All writable memory of a process that can be read, and how many mappings are hidden, none of which can be.
fn memory(process: &Path) -> (Haystack, usize) {
    let maps = std::fs::read_to_string(process.join("maps")).unwrap();
    let memory = std::fs::File::open(process.join("mem")).unwrap();
    let (mut found, mut hidden) = (Vec::new(), 0);
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (range, _) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|at| u64::from_str_radix(at, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        let read = memory.read_exact_at(&mut bytes, start);
        if line.contains("/secretmem") {
            read.unwrap_err();
            hidden += 1;
        } else if read.is_ok() {
            found.push((line.to_owned(), bytes));
        }
    }
    (Haystack(found), hidden)
}
