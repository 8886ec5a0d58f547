//! What bodies take.

use super::*;

fn tight(memory: usize) -> HttpBounds {
    HttpBounds { memory, ..PATIENT }
}

#[tokio::test]
async fn a_body_is_in_one_buffer_of_its_length() {
    let running = Running::new(PATIENT).await;
    for length in [0, 1, 1000, 700_001] {
        let body = "x".repeat(length);
        let answer = running.talk(post("/capacity", &body)).await;
        let expected = format!("\r\n\r\n{length}");
        assert!(answer.ends_with(&expected), "{answer}");
        let (_, answer) = ask(&mut running.client().await, "/capacity", body).await;
        assert_eq!(answer, length.to_string());
    }
}

#[tokio::test]
async fn a_body_without_room_waits_for_those_that_are_there() {
    let running = Running::new(tight(1000)).await;
    let mut first = running.connect().await;
    first
        .write_all(post("/gate", &"1".repeat(800)).as_bytes())
        .await
        .unwrap();
    running.inside(1).await;
    let mut client = running.client().await;
    let second = tokio::spawn(client.send_request(request("/", "2".repeat(800))));
    // Small ones that come later do not pass it; whoever is in a hurry is told.
    let hurried = post("/", &"3".repeat(300)).replace("host: x", "host: x\r\nhurry: yes");
    let refused = running.talk(hurried).await;
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    assert!(!second.is_finished());
    running.endpoint.gate.add_permits(1);
    let (status, body) = read(second.await.unwrap().unwrap()).await;
    assert_eq!((status, body.len()), (StatusCode::OK, 800));
}

#[tokio::test]
async fn a_body_that_never_fits_is_refused_at_once() {
    let running = Running::new(tight(1000)).await;
    let refused = running.talk(post("/", &"x".repeat(1001))).await;
    assert!(refused.starts_with("HTTP/1.1 413"), "{refused}");
    running.is_well().await;
}

#[tokio::test]
async fn room_comes_back_from_whoever_leaves() {
    let running = Running::new(tight(1000)).await;
    for _ in 0..20 {
        // Announced and not sent; sent and not waited for.
        let mut tcp = running.connect().await;
        let part = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 900\r\n\r\n01234";
        tcp.write_all(part.as_bytes()).await.unwrap();
        drop(tcp);
        let mut tcp = running.connect().await;
        tcp.write_all(post("/gate", &"x".repeat(900)).as_bytes())
            .await
            .unwrap();
        running.inside(1).await;
        drop(tcp);
        running.inside(0).await;
    }
    assert!(
        running
            .talk(post("/", &"x".repeat(1000)))
            .await
            .contains(" 200 ")
    );
}
