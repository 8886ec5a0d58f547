//! Who waits when no slot is free: bounded in all and for each user, fair between users, each with a deadline. Pure: no I/O, no
//! clock.
//!
//! Fair means start-time fair queueing (P. Goyal, H. M. Vin, H. Cheng, SIGCOMM 1996): each request has a tag, its user's last one
//! plus the time that its run is expected to take, and the lowest tag is first. A user with a thousand requests waits behind
//! itself.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// A request that waits, or waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// Who asks: whatever callers are told apart by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct User(Box<[u8]>);

impl User {
    /// The user of this name.
    #[must_use]
    pub fn new(name: &[u8]) -> Self {
        Self(name.into())
    }
}

/// Virtual time, in microseconds of expected run: whole numbers, so that tags have an order.
type Tag = u64;

/// How many may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// In all.
    pub all: usize,
    /// Of one user.
    pub each: usize,
}

/// There is no place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// For nobody.
    All,
    /// For this user.
    User,
}

/// One that waits.
#[derive(Debug)]
pub struct Waiting<T> {
    /// Its ticket.
    pub ticket: Ticket,
    /// Since when.
    pub since: Instant,
    /// Until when, at most.
    pub deadline: Instant,
    /// What waits.
    pub what: T,
    user: User,
}

#[derive(Debug, Default)]
struct Share {
    waiting: usize,
    last: Tag,
}

/// A bounded fair queue of `T`.
#[derive(Debug)]
pub struct FairQueue<T> {
    bounds: Bounds,
    tickets: u64,
    now: Tag,
    entries: BTreeMap<(Tag, Ticket), Waiting<T>>,
    tags: HashMap<Ticket, Tag>,
    users: HashMap<User, Share>,
}

impl<T> FairQueue<T> {
    /// An empty queue.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            tickets: 0,
            now: 0,
            entries: BTreeMap::new(),
            tags: HashMap::new(),
            users: HashMap::new(),
        }
    }

    /// Takes a place.
    ///
    /// # Errors
    /// [`Full`].
    pub fn enter(
        &mut self,
        user: &User,
        (since, deadline): (Instant, Instant),
        expected: Duration,
        what: T,
    ) -> Result<Ticket, Full> {
        if self.entries.len() >= self.bounds.all {
            return Err(Full::All);
        }
        let share = self.users.entry(user.clone()).or_default();
        if share.waiting >= self.bounds.each {
            return Err(Full::User);
        }
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let tag = share.last.max(self.now);
        let expected = u64::try_from(expected.as_micros()).unwrap_or(u64::MAX);
        share.last = tag.saturating_add(expected.max(1));
        share.waiting += 1;
        self.tags.insert(ticket, tag);
        let waiting = Waiting {
            ticket,
            since,
            deadline,
            what,
            user: user.clone(),
        };
        self.entries.insert((tag, ticket), waiting);
        Ok(ticket)
    }

    /// Those who wait, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Waiting<T>> {
        self.entries.values()
    }

    /// Who is first.
    #[must_use]
    pub fn first(&self) -> Option<Ticket> {
        self.entries.keys().next().map(|(_, ticket)| *ticket)
    }

    /// It has its turn.
    pub fn take(&mut self, ticket: Ticket) -> Option<Waiting<T>> {
        let tag = *self.tags.get(&ticket)?;
        self.now = self.now.max(tag);
        self.leave(ticket)
    }

    /// It leaves, wherever it is. `None` if it is not in the queue any more.
    pub fn leave(&mut self, ticket: Ticket) -> Option<Waiting<T>> {
        let tag = self.tags.remove(&ticket)?;
        let left = self.entries.remove(&(tag, ticket))?;
        if let Some(share) = self.users.get_mut(&left.user) {
            share.waiting -= 1;
            // Whoever has none waiting is remembered for as long as the others have not caught up; an empty queue starts anew.
            if share.waiting == 0 && share.last <= self.now {
                self.users.remove(&left.user);
            }
        }
        if self.entries.is_empty() {
            self.users.clear();
            self.now = 0;
        }
        Some(left)
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many may wait.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RUN: Duration = Duration::from_millis(10);
    const LONG: Duration = Duration::from_secs(600);

    fn queue(all: usize, each: usize) -> FairQueue<char> {
        FairQueue::new(Bounds { all, each })
    }

    fn enter(queue: &mut FairQueue<char>, user: &str, what: char) -> Result<Ticket, Full> {
        let now = Instant::now();
        queue.enter(&User::new(user.as_bytes()), (now, now + LONG), RUN, what)
    }

    fn drain(queue: &mut FairQueue<char>) -> String {
        let mut all = String::new();
        while let Some(first) = queue.first() {
            all.extend(queue.take(first).map(|it| it.what));
        }
        all
    }

    #[test]
    fn one_user_is_served_in_order_and_two_take_turns() {
        let mut queue = queue(9, 9);
        for what in ['a', 'b', 'c', 'd'] {
            enter(&mut queue, "many", what).unwrap();
        }
        for what in ['x', 'y'] {
            enter(&mut queue, "few", what).unwrap();
        }
        assert_eq!(drain(&mut queue), "axbycd");
    }

    #[test]
    fn a_user_whose_runs_are_long_has_fewer_turns() {
        let (mut queue, now) = (queue(20, 20), Instant::now());
        for (user, run, what) in [("long", 30, 'l'), ("short", 10, 's')] {
            for _ in 0..6 {
                let run = Duration::from_millis(run);
                queue
                    .enter(&User::new(user.as_bytes()), (now, now + LONG), run, what)
                    .unwrap();
            }
        }
        let turns = drain(&mut queue);
        let short = turns.chars().take(8).filter(|it| *it == 's').count();
        assert_eq!(short, 6, "{turns}");
    }

    #[test]
    fn whoever_was_idle_gets_no_credit_for_it() {
        let mut queue = queue(99, 99);
        for _ in 0..10 {
            enter(&mut queue, "busy", 'b').unwrap();
        }
        for _ in 0..5 {
            let first = queue.first().unwrap();
            queue.take(first).unwrap();
        }
        for _ in 0..3 {
            enter(&mut queue, "late", 'l').unwrap();
        }
        // In turns from now on, not three at once.
        assert_eq!(drain(&mut queue), "lblblbbb");
    }

    #[test]
    fn there_is_an_end_to_places_in_all_and_of_each_user() {
        let mut queue = queue(3, 2);
        let first = enter(&mut queue, "a", 'a').unwrap();
        enter(&mut queue, "a", 'b').unwrap();
        assert_eq!(enter(&mut queue, "a", 'c'), Err(Full::User));
        enter(&mut queue, "b", 'd').unwrap();
        assert_eq!(enter(&mut queue, "c", 'e'), Err(Full::All));
        assert!(queue.leave(first).is_some());
        assert!(queue.leave(first).is_none());
        enter(&mut queue, "c", 'e').unwrap();
    }

    proptest! {
        #[test]
        fn nobody_is_lost_and_nothing_is_kept(steps in prop::collection::vec((0..3_u8, 0..4_u8, any::<prop::sample::Index>()), 0..200)) {
            let (mut queue, now) = (FairQueue::new(Bounds { all: 12, each: 5 }), Instant::now());
            let mut inside: Vec<Ticket> = Vec::new();
            for (step, user, which) in steps {
                match step {
                    0 => {
                        let entered = queue.enter(&User::new(&[user]), (now, now + LONG), RUN, user);
                        match entered {
                            Ok(ticket) => inside.push(ticket),
                            Err(_) => prop_assert!(inside.len() >= 5),
                        }
                    }
                    1 if !inside.is_empty() => {
                        let ticket = inside.swap_remove(which.index(inside.len()));
                        prop_assert!(queue.leave(ticket).is_some());
                    }
                    _ => if let Some(first) = queue.first() {
                        prop_assert!(queue.take(first).is_some());
                        inside.retain(|it| *it != first);
                    },
                }
                prop_assert_eq!(queue.len(), inside.len());
            }
            while let Some(ticket) = inside.pop() {
                queue.leave(ticket);
            }
            prop_assert!(queue.is_empty() && queue.tags.is_empty() && queue.users.is_empty());
        }
    }
}
