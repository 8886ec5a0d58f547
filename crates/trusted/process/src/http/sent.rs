//! An answer on its way out. Its bytes are those that were sealed, and their room is free when the last of them has left.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::mpsc;

use super::budget::{Budget, Room};
use super::pace::Open;
use super::{Answer, Body};

/// The body of an answer, and what is held until it has left.
#[derive(Debug)]
pub(super) enum Sent {
    Whole(Full<Bytes>),
    Pieces(
        mpsc::Receiver<std::io::Result<Bytes>>,
        #[expect(dead_code, reason = "held")] Open,
    ),
}

/// Bytes that nobody copies any more. The connection may hold them for long after it has taken them from the body.
struct Kept {
    bytes: Bytes,
    _room: Room,
    _open: Open,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

pub(super) fn sent(answer: Answer, budget: &Budget, mut open: Open) -> hyper::Response<Sent> {
    answer.map(|body| match body {
        Body::Pieces(pieces) => Sent::Pieces(pieces, open),
        Body::Whole(bytes) => {
            open.answered();
            Sent::Whole(Full::new(Bytes::from_owner(Kept {
                _room: budget.take_over(bytes.len()),
                bytes,
                _open: open,
            })))
        }
    })
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(whole) => Pin::new(whole)
                .poll_frame(context)
                .map_err(|never| match never {}),
            Self::Pieces(pieces, _) => pieces
                .poll_recv(context)
                .map(|piece| piece.map(|piece| piece.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Pieces(..) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Pieces(..) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use http_body_util::BodyExt as _;
    use hyper::StatusCode;

    use super::*;
    use crate::http::pace::Pace;
    use crate::http::text;

    #[tokio::test]
    async fn an_answer_is_sent_from_where_it_is_and_keeps_its_room_until_it_has_left() {
        let (budget, pace) = (Budget::new(1000), Pace::new());
        let content = vec![1; 300];
        let place = content.as_ptr();
        let mut body = sent(text(StatusCode::OK, content), &budget, pace.begin()).into_body();
        let frame = body.frame().now_or_never().flatten().unwrap().unwrap();
        drop(body);
        let data = frame.into_data().unwrap();
        assert_eq!(data.as_ptr(), place);
        assert_eq!(budget.used(), 300);
        drop(data);
        assert_eq!(budget.used(), 0);
    }
}
