//! The models of one instance: loaded once for all that ask, those used least recently go when there is no room.

use std::collections::HashMap;

/// What an instance says to a request of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The model is there.
    Held,
    /// It has to be loaded, now.
    Load,
    /// Another request has it loaded already.
    UnderWay,
}

#[derive(Debug)]
struct Held {
    model: usize,
    bytes: u64,
    serving: u32,
    loaded: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Instance {
    room: u64,
    /// Used least recently first.
    held: Vec<Held>,
    waiting: HashMap<usize, Vec<usize>>,
}

impl Instance {
    pub(super) fn new(room: u64) -> Self {
        Self {
            room,
            held: Vec::new(),
            waiting: HashMap::new(),
        }
    }

    /// A call asks for a model.
    pub(super) fn ask(&mut self, model: usize, bytes: u64, call: usize) -> Answer {
        if let Some(place) = self.held.iter().position(|it| it.model == model) {
            let mut held = self.held.remove(place);
            held.serving += 1;
            let loaded = held.loaded;
            self.held.push(held);
            if loaded {
                return Answer::Held;
            }
            self.waiting.entry(model).or_default().push(call);
            return Answer::UnderWay;
        }
        let mut taken: u64 = self.held.iter().map(|it| it.bytes).sum();
        while taken + bytes > self.room
            && let Some(place) = self.held.iter().position(|it| it.serving == 0 && it.loaded)
        {
            taken -= self.held.remove(place).bytes;
        }
        self.held.push(Held {
            model,
            bytes,
            serving: 1,
            loaded: false,
        });
        self.waiting.entry(model).or_default().push(call);
        Answer::Load
    }

    /// A model is loaded: who waits for it.
    pub(super) fn loaded(&mut self, model: usize) -> Vec<usize> {
        for held in self.held.iter_mut().filter(|it| it.model == model) {
            held.loaded = true;
        }
        self.waiting.remove(&model).unwrap_or_default()
    }

    /// A run of a model is over.
    pub(super) fn ran(&mut self, model: usize) {
        for held in self.held.iter_mut().filter(|it| it.model == model) {
            held.serving = held.serving.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_loaded_once_and_the_least_recently_used_goes() {
        let mut instance = Instance::new(200);
        assert_eq!(instance.ask(0, 100, 10), Answer::Load);
        assert_eq!(instance.ask(0, 100, 11), Answer::UnderWay);
        assert_eq!(instance.loaded(0), [10, 11]);
        assert_eq!(instance.ask(0, 100, 12), Answer::Held);
        assert_eq!(instance.ask(1, 100, 13), Answer::Load);
        assert_eq!(instance.loaded(1), [13]);
        for _ in 0..3 {
            instance.ran(0);
        }
        assert_eq!(
            instance.ask(2, 100, 14),
            Answer::Load,
            "in place of the first"
        );
        instance.ran(1);
        assert_eq!(instance.ask(1, 100, 15), Answer::Held);
        assert_eq!(instance.ask(0, 100, 16), Answer::Load);
    }
}
