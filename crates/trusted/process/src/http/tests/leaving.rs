//! Clients that leave, and clients that do not take what they asked for.

use super::*;

/// Longest that a test waits for what it expects.
const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn closing_a_connection_ends_the_work_on_its_request() {
    let running = Running::new(PATIENT).await;
    let mut tcp = running.connect().await;
    tcp.write_all(post("/gate", "x").as_bytes()).await.unwrap();
    running.inside(1).await;
    drop(tcp);
    running.inside(0).await;
}

#[tokio::test]
async fn resetting_a_stream_ends_the_work_on_its_request_and_no_other() {
    let running = Running::new(PATIENT).await;
    let mut client = running.client().await;
    let leaving = tokio::spawn(client.send_request(request("/gate", "leaving")));
    let staying = tokio::spawn(client.send_request(request("/gate", "staying")));
    running.inside(2).await;
    // hyper's client resets the stream of a request that is dropped.
    leaving.abort();
    running.inside(1).await;
    running.endpoint.gate.add_permits(1);
    assert_eq!(read(staying.await.unwrap().unwrap()).await.1, "staying");
}

#[tokio::test]
async fn an_answer_that_nobody_reads_ends_the_connection() {
    let running = Running::new(HASTY).await;
    let mut tcp = running.connect().await;
    tcp.write_all(post("/large", "").as_bytes()).await.unwrap();
    // The one place where it shows without a read: the server closes, and what we send then is answered by a reset.
    let closed = async {
        while tcp.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, closed).await.unwrap();
    running.is_well().await;
}
