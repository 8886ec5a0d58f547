//! Who runs next when there are more requests than slots. Pure: time comes from outside.
//!
//! Between users it is start-time fair queueing (P. Goyal, H. M. Vin, H. Cheng, "Start-time Fair Queuing: A Scheduling
//! Algorithm for Integrated Services Packet Switching Networks", SIGCOMM 1996): each user has a clock that advances by what its
//! runs cost, and the user whose clock is furthest behind is next. Somebody who sends a thousand requests waits behind its own,
//! and not in front of somebody who sends one. A user who was away for a while gets no credit for it.
//!
//! Among the requests of one user, the one with the earliest deadline is first.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Names one waiting request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket<D> {
    deadline: D,
    number: u64,
}

/// Requests that wait, by user. `D` is a deadline, and `W` what wakes the request.
#[derive(Debug)]
pub(super) struct FairQueue<U, D, W> {
    users: HashMap<U, User<D, W>>,
    /// Clock of the user who began a run last.
    now: f64,
    waiting: usize,
    limit: usize,
    next: u64,
}

#[derive(Debug)]
struct User<D, W> {
    /// Seconds of runs, on a clock that never falls behind that of all.
    clock: f64,
    running: usize,
    waiting: BTreeMap<(D, u64), W>,
}

/// What came of a request that wanted to wait.
#[derive(Debug)]
pub(super) enum Pushed<D, W> {
    /// It waits.
    Waits(Ticket<D>),
    /// It waits in place of this one, the last of the user with the most.
    InPlaceOf(Ticket<D>, W),
    /// There is no room for it.
    Full,
}

impl<U, D, W> FairQueue<U, D, W>
where
    U: Copy + Eq + Hash,
    D: Copy + Ord,
{
    /// An empty queue for at most `limit` requests.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            users: HashMap::new(),
            now: 0.0,
            waiting: 0,
            limit,
            next: 0,
        }
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    /// Adds a request. If there is no room, then the user with the most waiting ones loses its last, unless that is this user.
    pub(super) fn push(&mut self, user: U, deadline: D, wakes: W) -> Pushed<D, W> {
        let displaced = if self.waiting < self.limit {
            None
        } else {
            match self.displace_for(&user) {
                Some(displaced) => Some(displaced),
                None => return Pushed::Full,
            }
        };
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.user(user).waiting.insert((deadline, number), wakes);
        self.waiting = self.waiting.saturating_add(1);
        let ticket = Ticket { deadline, number };
        match displaced {
            None => Pushed::Waits(ticket),
            Some(displaced) => Pushed::InPlaceOf(ticket, displaced),
        }
    }

    /// Takes the last request of the user that has the most, if that has more than `user` would have.
    fn displace_for(&mut self, user: &U) -> Option<W> {
        let own = self.users.get(user).map_or(0, |user| user.waiting.len());
        let longest = self.users.iter_mut();
        let (_, longest) = longest.max_by_key(|(_, other)| other.waiting.len())?;
        if longest.waiting.len() <= own.saturating_add(1) {
            return None;
        }
        let (_, displaced) = longest.waiting.pop_last()?;
        self.waiting = self.waiting.saturating_sub(1);
        Some(displaced)
    }

    /// Takes the request that runs next.
    pub(super) fn pop(&mut self) -> Option<(U, W)> {
        let waiting = self.users.iter();
        let waiting = waiting.filter(|(_, user)| !user.waiting.is_empty());
        // Of two that are equally far behind, the one whose request came first.
        let first = |user: &User<D, W>| user.waiting.keys().map(|(_, number)| *number).min();
        let (name, _) = waiting.min_by(|(_, a), (_, b)| {
            a.clock
                .total_cmp(&b.clock)
                .then_with(|| first(a).cmp(&first(b)))
        })?;
        let name = *name;
        let (_, wakes) = self.users.get_mut(&name)?.waiting.pop_first()?;
        self.waiting = self.waiting.saturating_sub(1);
        Some((name, wakes))
    }

    /// Takes a request out that does not want to wait any more.
    pub(super) fn remove(&mut self, user: &U, ticket: Ticket<D>) {
        let Some(found) = self.users.get_mut(user) else {
            return;
        };
        let key = (ticket.deadline, ticket.number);
        if found.waiting.remove(&key).is_some() {
            self.waiting = self.waiting.saturating_sub(1);
        }
        self.forget_if_idle(user);
    }

    /// Notes that a run of a user begins, which will take about `seconds`.
    pub(super) fn began(&mut self, user: U, seconds: f64) {
        let found = self.user(user);
        found.running = found.running.saturating_add(1);
        let clock = found.clock;
        found.clock += seconds;
        self.now = self.now.max(clock);
    }

    /// Notes that it ended, and took `seconds` instead of the `expected` ones.
    pub(super) fn ended(&mut self, user: &U, expected: f64, seconds: f64) {
        if let Some(found) = self.users.get_mut(user) {
            found.running = found.running.saturating_sub(1);
            found.clock += seconds - expected;
        }
        self.forget_if_idle(user);
    }

    fn user(&mut self, user: U) -> &mut User<D, W> {
        let now = self.now;
        let found = self.users.entry(user).or_insert_with(|| User {
            clock: now,
            running: 0,
            waiting: BTreeMap::new(),
        });
        if found.running == 0 && found.waiting.is_empty() {
            found.clock = found.clock.max(now);
        }
        found
    }

    /// Users who neither wait nor run are forgotten as soon as their clock says nothing any more.
    fn forget_if_idle(&mut self, user: &U) {
        let now = self.now;
        let idle =
            |user: &User<D, W>| user.running == 0 && user.waiting.is_empty() && user.clock <= now;
        if self.users.get(user).is_some_and(idle) {
            self.users.remove(user);
        }
        // Those who are ahead are forgotten when the others have caught up, or when there are too many of them.
        if self.users.len() > self.limit.saturating_add(MOST_IDLE) {
            self.users
                .retain(|_, user| user.running > 0 || !user.waiting.is_empty());
        }
    }
}

/// Users without a request whose clocks are remembered, at most.
const MOST_IDLE: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    type Queue = FairQueue<char, u32, u32>;

    fn push(queue: &mut Queue, user: char, deadline: u32, name: u32) -> Ticket<u32> {
        match queue.push(user, deadline, name) {
            Pushed::Waits(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    /// Runs all that wait one after the other; each takes a second.
    fn run_all(queue: &mut Queue) -> Vec<(char, u32)> {
        let mut order = Vec::new();
        while let Some((user, name)) = queue.pop() {
            queue.began(user, 1.0);
            queue.ended(&user, 1.0, 1.0);
            order.push((user, name));
        }
        order
    }

    #[test]
    fn users_take_turns_however_many_requests_one_of_them_sends() {
        let mut queue = Queue::new(100);
        for name in 0..5 {
            push(&mut queue, 'a', 9, name);
        }
        push(&mut queue, 'b', 9, 10);
        push(&mut queue, 'c', 9, 20);
        let order: String = run_all(&mut queue).iter().map(|(user, _)| user).collect();
        assert_eq!(order, "abcaaaa");
    }

    #[test]
    fn whoever_has_long_runs_gets_fewer_of_them() {
        let mut queue = Queue::new(100);
        for name in 0..30 {
            push(&mut queue, 'a', 9, name);
            push(&mut queue, 'b', 9, name);
        }
        let mut begun = [0; 2];
        for _ in 0..12 {
            let (user, _) = queue.pop().unwrap();
            queue.began(user, 1.0);
            let took = if user == 'a' { 5.0 } else { 1.0 };
            queue.ended(&user, 1.0, took);
            begun[usize::from(user == 'b')] += 1;
        }
        assert_eq!(begun, [2, 10]);
    }

    #[test]
    fn of_one_users_requests_the_most_urgent_is_first() {
        let mut queue = Queue::new(100);
        for (deadline, name) in [(30, 1), (10, 2), (20, 3), (10, 4)] {
            push(&mut queue, 'a', deadline, name);
        }
        let names: Vec<u32> = run_all(&mut queue).iter().map(|(_, name)| *name).collect();
        assert_eq!(names, [2, 4, 3, 1]);
    }

    #[test]
    fn nobody_saves_up_turns_while_away() {
        let mut queue = Queue::new(100);
        push(&mut queue, 'b', 9, 0);
        run_all(&mut queue);
        for name in 0..50 {
            push(&mut queue, 'a', 9, name);
        }
        run_all(&mut queue);
        for name in 0..3 {
            push(&mut queue, 'b', 9, name);
            push(&mut queue, 'a', 9, name);
        }
        let order: String = run_all(&mut queue).iter().map(|(user, _)| user).collect();
        assert_eq!(order.matches('b').count(), 3);
        assert!(order.chars().take(4).any(|user| user == 'a'), "{order}");
    }

    #[test]
    fn a_full_queue_makes_room_at_the_cost_of_whoever_has_the_most() {
        let mut queue = Queue::new(3);
        for name in 0..3 {
            push(&mut queue, 'a', 9, name);
        }
        assert!(matches!(queue.push('a', 1, 3), Pushed::Full));
        assert!(matches!(queue.push('b', 9, 10), Pushed::InPlaceOf(_, 2)));
        // Two and one: a third user may wait, and after that each has its one.
        assert!(matches!(queue.push('c', 9, 20), Pushed::InPlaceOf(_, 1)));
        assert!(matches!(queue.push('d', 9, 30), Pushed::Full));
        assert_eq!(queue.len(), 3);
        assert_eq!(run_all(&mut queue), [('a', 0), ('b', 10), ('c', 20)]);
        assert!(queue.is_empty());
    }

    #[test]
    fn who_leaves_leaves_nothing() {
        let mut queue = Queue::new(2);
        let ticket = push(&mut queue, 'a', 9, 1);
        queue.remove(&'a', ticket);
        queue.remove(&'a', ticket);
        assert_eq!(queue.len(), 0);
        assert!(queue.users.is_empty());
        assert!(queue.pop().is_none());
        for user in 0..5_000_u32 {
            let user = char::from_u32(0x4E00 + user).unwrap();
            queue.began(user, 1.0);
            queue.ended(&user, 1.0, 2.0);
        }
        assert!(queue.users.len() <= 2 + MOST_IDLE + 1);
    }
}
