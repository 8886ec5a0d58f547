//! The body of a request, on its way into one buffer of its final size.

use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::{Body as _, Incoming};
use hyper::http::request::Parts;
use tokio::time::{Instant, timeout_at};

use super::budget::{Budget, NoRoom, Room};

/// What a body begins with whose length nobody announced, in bytes.
const FIRST: usize = 16 * 1024;

/// Why a request's body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// It is longer than it may be.
    TooLong,
    /// It did not arrive in time.
    TooSlow,
    /// There was no memory for it in time.
    NoRoom,
    /// It broke off, or is malformed.
    Broken,
}

/// A body that was read, and the room that it takes.
#[derive(Debug)]
pub struct Content {
    bytes: Vec<u8>,
    room: Room,
    arrived: Instant,
}

impl Content {
    /// The body.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// When the request's head had arrived: its time counts from then.
    #[must_use]
    pub fn arrived(&self) -> Instant {
        self.arrived
    }

    /// The body, which is not copied, and its room, which is to be kept for as long as the body.
    #[must_use]
    pub fn into_parts(self) -> (Vec<u8>, Room) {
        (self.bytes, self.room)
    }
}

/// Reads a body of at most `longest` bytes before `until`. Nothing of it is taken from the connection before there is room.
pub(super) async fn receive(
    request: Request<Incoming>,
    longest: usize,
    budget: &Budget,
    arrived: Instant,
    until: Instant,
) -> Result<Request<Content>, (Parts, Unread)> {
    let (head, body) = request.into_parts();
    match read(body, longest, budget, until).await {
        Ok((bytes, room)) => {
            let content = Content {
                bytes,
                room,
                arrived,
            };
            Ok(Request::from_parts(head, content))
        }
        Err(why) => Err((head, why)),
    }
}

async fn read(
    mut body: Incoming,
    longest: usize,
    budget: &Budget,
    until: Instant,
) -> Result<(Vec<u8>, Room), Unread> {
    let announced = body.size_hint();
    if announced.lower() > longest as u64 {
        return Err(Unread::TooLong);
    }
    let mut bytes = Vec::new();
    let mut room = match announced
        .exact()
        .and_then(|length| usize::try_from(length).ok())
    {
        None => budget.none(),
        Some(length) => {
            let room = timeout_at(until, budget.take(length)).await;
            let room = room.map_err(|_| Unread::NoRoom)?.map_err(unread)?;
            let reserved = bytes.try_reserve_exact(length);
            reserved.map_err(|_| Unread::NoRoom)?;
            room
        }
    };
    loop {
        let frame = timeout_at(until, body.frame()).await;
        let Some(frame) = frame.map_err(|_| Unread::TooSlow)? else {
            return Ok((bytes, room));
        };
        // What is no data are trailers, which mean nothing here.
        let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else {
            continue;
        };
        let needed = bytes.len().saturating_add(data.len());
        if needed > longest {
            return Err(Unread::TooLong);
        }
        if needed > bytes.capacity() {
            let doubled = bytes.capacity().saturating_mul(2).max(FIRST);
            let capacity = doubled.min(longest).max(needed);
            room.grow(capacity).map_err(unread)?;
            let reserved = bytes.try_reserve_exact(capacity.saturating_sub(bytes.len()));
            reserved.map_err(|_| Unread::NoRoom)?;
        }
        bytes.extend_from_slice(&data);
    }
}

fn unread(why: NoRoom) -> Unread {
    match why {
        NoRoom::Never => Unread::TooLong,
        NoRoom::Now => Unread::NoRoom,
    }
}
