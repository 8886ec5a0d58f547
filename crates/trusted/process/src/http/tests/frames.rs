//! HTTP/2 by hand: what no honest client sends.

use super::*;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const REFUSED_STREAM: u32 = 7;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// POST, http, a path, a host (RFC 7541, appendix A).
fn fields(path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86, 0x44, path.len() as u8];
    block.extend(path.as_bytes());
    block.extend([0x41, 1, b'x']);
    block
}

fn headers(stream: u32, path: &str, flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &fields(path))
}

/// The preface and empty settings.
fn begin() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// The next frame; `None` once the server has closed.
async fn next(tcp: &mut TcpStream) -> Option<Frame> {
    let mut head = [0; 9];
    tcp.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    tcp.read_exact(&mut payload).await.ok()?;
    Some(Frame {
        kind: head[3],
        flags: head[4],
        stream: u32::from_be_bytes(head[5..].try_into().unwrap()),
        payload,
    })
}

/// Reads until a frame is of this kind.
async fn next_of(tcp: &mut TcpStream, kind: u8) -> Option<Frame> {
    loop {
        let frame = next(tcp).await?;
        if frame.kind == kind {
            return Some(frame);
        }
    }
}

fn code(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[payload.len() - 4..].try_into().unwrap())
}

async fn opened(running: &Running, bytes: &[u8]) -> TcpStream {
    let mut tcp = running.connect().await;
    tcp.write_all(&[&begin(), bytes].concat()).await.unwrap();
    tcp
}

#[tokio::test]
async fn the_settings_announce_the_bounds() {
    let running = Running::new(PATIENT).await;
    let mut tcp = opened(&running, &[]).await;
    let settings = next_of(&mut tcp, SETTINGS).await.unwrap();
    let announced: Vec<(u16, u32)> = settings
        .payload
        .chunks(6)
        .map(|it| (u16::from_be_bytes([it[0], it[1]]), code(it)))
        .collect();
    // MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_HEADER_LIST_SIZE (RFC 9113, 6.5.2).
    for setting in [(3, PATIENT.streams), (4, 64 * 1024), (6, 16 * 1024)] {
        assert!(announced.contains(&setting), "{setting:?}: {announced:?}");
    }
    // MAX_FRAME_SIZE is the protocol's least, said or not.
    assert!(
        announced
            .iter()
            .all(|(name, value)| *name != 5 || *value == 16 * 1024)
    );
}

#[tokio::test]
async fn a_stream_too_many_is_refused_and_the_others_answered() {
    let running = Running::new(PATIENT).await;
    let streams: Vec<u8> = (0..=PATIENT.streams)
        .flat_map(|i| headers(2 * i + 1, "/gate", 0))
        .collect();
    let mut tcp = opened(&running, &streams).await;
    let refused = next_of(&mut tcp, RESET).await.unwrap();
    assert_eq!(refused.stream, 2 * PATIENT.streams + 1);
    assert_eq!(code(&refused.payload), REFUSED_STREAM);
    running.endpoint.gate.add_permits(1);
    tcp.write_all(&frame(DATA, END_STREAM, 3, b"here"))
        .await
        .unwrap();
    let answer = next_of(&mut tcp, DATA).await.unwrap();
    assert_eq!((answer.stream, &answer.payload[..]), (3, &b"here"[..]));
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_in_a_row_end_the_connection() {
    let running = Running::new(PATIENT).await;
    let floods: Vec<u8> = (0..1000_u32)
        .flat_map(|i| {
            let stream = 2 * i + 1;
            let mut pair = headers(stream, "/gate", END_STREAM);
            pair.extend(frame(RESET, 0, stream, &8_u32.to_be_bytes()));
            pair
        })
        .collect();
    let mut tcp = opened(&running, &floods).await;
    let ended = next_of(&mut tcp, GO_AWAY).await;
    // ENHANCE_YOUR_CALM, unless the reset of the connection came before it.
    assert!(ended.is_none_or(|frame| code(&frame.payload[4..8]) == 0xb));
    while next(&mut tcp).await.is_some() {}
    running.inside(0).await;
    running.is_well().await;
}

#[tokio::test]
async fn a_head_without_end_is_not_collected() {
    let running = Running::new(PATIENT).await;
    let mut flood = frame(HEADERS, 0, 1, &fields("/"));
    // A field that is not indexed, of 100 bytes, again and again.
    let mut field = vec![0, 1, b'a', 100];
    field.extend([b'b'; 100]);
    for _ in 0..4000 {
        flood.extend(frame(CONTINUATION, 0, 1, &field));
    }
    let mut tcp = running.connect().await;
    // The server may close before all is written.
    let _ = tcp.write_all(&[begin(), flood].concat()).await;
    while next(&mut tcp).await.is_some() {}
    assert_eq!(*running.endpoint.inside.borrow(), 0);
    running.is_well().await;
}

#[tokio::test]
async fn frames_of_no_form_end_their_connection_only() {
    let running = Running::new(PATIENT).await;
    let long = frame(DATA, 0, 1, &vec![0; 16 * 1024 + 1]);
    let even = headers(2, "/", END_STREAM);
    let data_of_no_stream = frame(DATA, 0, 1, b"x");
    let wrong_settings = frame(SETTINGS, 0, 0, &[0; 5]);
    let not_hpack = frame(HEADERS, END_HEADERS, 1, &[0xff; 40]);
    for bad in [long, even, data_of_no_stream, wrong_settings, not_hpack] {
        let mut tcp = opened(&running, &bad).await;
        while next(&mut tcp).await.is_some() {}
    }
    running.is_well().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_in_time_is_refused_and_its_connection_lives() {
    let running = Running::new(HASTY).await;
    let mut client = running.client().await;
    let mut tcp = opened(&running, &headers(1, "/", 0)).await;
    let answer = next_of(&mut tcp, HEADERS).await.unwrap();
    // 408 is not in the static table, so it stands there as it is.
    assert!(answer.payload.windows(3).any(|it| it == b"408") || answer.flags & END_STREAM == 0);
    assert_eq!(*running.endpoint.inside.borrow(), 0);
    drop(client.send_request(request("/", "ok")).await);
}

#[tokio::test]
async fn a_connection_without_requests_is_closed() {
    let running = Running::new(HASTY).await;
    let mut tcp = opened(&running, &[]).await;
    assert!(next_of(&mut tcp, GO_AWAY).await.is_some());
}

#[tokio::test]
async fn an_answer_that_nobody_opens_a_window_for_ends_the_connection() {
    let running = Running::new(HASTY).await;
    let mut tcp = opened(&running, &headers(1, "/large", END_STREAM)).await;
    let mut taken = 0;
    while let Some(frame) = next(&mut tcp).await {
        taken += usize::from(frame.kind == DATA) * frame.payload.len();
    }
    // The window that a connection begins with (RFC 9113, 6.9.2).
    assert_eq!(taken, 65_535);
}

#[tokio::test]
async fn closing_a_connection_ends_the_work_on_all_its_streams() {
    let running = Running::new(PATIENT).await;
    let streams = [1, 3, 5].map(|stream| headers(stream, "/gate", END_STREAM));
    let tcp = opened(&running, &streams.concat()).await;
    running.inside(3).await;
    drop(tcp);
    running.inside(0).await;
}
