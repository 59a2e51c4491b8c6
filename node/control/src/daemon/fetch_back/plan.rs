//! What to fetch back next, and whom to ask: without IO.
//!
//! It goes round: look what is lacking, reach whom there is, fetch one thing after the other, and rest before the next
//! round if something is still lacking. What one round did not get holds up nothing of it that others can get.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::uploads::Lack;

/// How long it rests at first: a node that was started anew is back by then.
const REST_MIN: Duration = Duration::from_mins(1);

/// How long it rests at most.
const REST_MAX: Duration = Duration::from_hours(1);

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Look what is lacking.
    Look,
    /// Find out who of these can be asked.
    Reach(Vec<SocketAddr>),
    /// Fetch this from these.
    Fetch(Lack, Vec<SocketAddr>),
    /// Wait this long.
    Rest(Duration),
    /// Give up: something is lacking, and nobody was named to be asked.
    Nobody,
    /// End: nothing is lacking.
    Done,
}

/// What fetching something came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is here.
    Came,
    /// Nobody who was asked has it.
    NotThere,
    /// Somebody could not be asked, who may have it.
    Unreached,
    /// This machine cannot keep it.
    Ours,
}

/// What is lacking, and who can be asked.
pub(super) struct Plan {
    sources: Vec<SocketAddr>,
    /// Those of them that can be asked, if that is known.
    reached: Option<Vec<SocketAddr>>,
    /// What this round has not tried yet; absent before it has looked.
    queue: Option<VecDeque<Lack>>,
    /// What it has tried and not got.
    left: usize,
    rest: Duration,
}

impl Plan {
    /// Returns a plan that asks `sources`.
    pub(super) const fn new(sources: Vec<SocketAddr>) -> Self {
        Self { sources, reached: None, queue: None, left: 0, rest: REST_MIN }
    }

    /// Returns how much is lacking, as far as is known.
    pub(super) fn lacking(&self) -> usize {
        self.left + self.queue.as_ref().map_or(0, VecDeque::len)
    }

    /// Returns what is to be done next.
    pub(super) fn step(&mut self) -> Step {
        let Some(queue) = &self.queue else { return Step::Look };
        let Some(first) = queue.front() else {
            return if self.left == 0 { Step::Done } else { self.rest() };
        };
        if self.sources.is_empty() {
            return Step::Nobody;
        }
        match &self.reached {
            None => Step::Reach(self.sources.clone()),
            Some(reached) if reached.is_empty() => self.rest(),
            Some(reached) => Step::Fetch(first.clone(), reached.clone()),
        }
    }

    /// Is told what is lacking, in the order to fetch it in.
    pub(super) fn looked(&mut self, lacks: Vec<Lack>) {
        (self.queue, self.left) = (Some(lacks.into()), 0);
    }

    /// Is told that it cannot be told: as much is taken to be lacking as before, and something.
    pub(super) fn not_looked(&mut self) {
        (self.queue, self.left) = (Some(VecDeque::new()), self.left.max(1));
    }

    /// Is told who can be asked.
    pub(super) fn reached(&mut self, reached: Vec<SocketAddr>) {
        self.reached = Some(reached);
    }

    /// Is told what became of what was to be fetched.
    pub(super) fn ended(&mut self, outcome: Outcome) {
        let Some(queue) = &mut self.queue else { return };
        queue.pop_front();
        if outcome == Outcome::Came {
            self.rest = REST_MIN;
            return;
        }
        self.left += 1;
        match outcome {
            Outcome::Came | Outcome::NotThere => {}
            Outcome::Unreached => self.reached = None,
            // What cannot be kept of one, because the disk is full, cannot be of the others.
            Outcome::Ours => self.left += queue.drain(..).count(),
        }
    }

    /// Ends a round.
    fn rest(&mut self) -> Step {
        self.left = self.lacking();
        (self.queue, self.reached) = (None, None);
        let rest = self.rest;
        self.rest = (rest * 2).min(REST_MAX);
        Step::Rest(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use sutler_protocol::ContentId;

    use super::*;

    fn lacks(count: u8) -> Vec<Lack> {
        let lack = |byte| Lack::List { length: 1, content: ContentId::from_bytes([byte; 32]) };
        (0..count).map(lack).collect()
    }

    fn nodes(count: u16) -> Vec<SocketAddr> {
        (1..=count).map(|port| (Ipv4Addr::LOCALHOST, port).into()).collect()
    }

    fn looked(sources: u16, lacking: u8) -> Plan {
        let mut plan = Plan::new(nodes(sources));
        assert_eq!(plan.step(), Step::Look);
        plan.looked(lacks(lacking));
        plan
    }

    #[test]
    fn nothing_lacking_asks_nobody_and_ends() {
        assert_eq!(looked(2, 0).step(), Step::Done);
        assert_eq!(looked(0, 0).step(), Step::Done);
    }

    #[test]
    fn without_anybody_to_ask_it_gives_up_and_says_how_much_is_lacking() {
        let mut plan = looked(0, 3);
        assert_eq!(plan.step(), Step::Nobody);
        assert_eq!(plan.lacking(), 3);
    }

    #[test]
    fn one_after_the_other_is_fetched_from_those_who_were_reached() {
        let mut plan = looked(3, 2);
        assert_eq!(plan.step(), Step::Reach(nodes(3)));
        plan.reached(nodes(1));
        assert_eq!(plan.step(), Step::Fetch(lacks(2)[0].clone(), nodes(1)));
        plan.ended(Outcome::Came);
        assert_eq!(plan.lacking(), 1);
        assert_eq!(plan.step(), Step::Fetch(lacks(2)[1].clone(), nodes(1)));
        plan.ended(Outcome::Came);
        assert_eq!(plan.step(), Step::Done);
        assert_eq!(plan.lacking(), 0);
    }

    #[test]
    fn what_nobody_has_holds_up_nothing_and_is_looked_for_again_later_and_later() {
        let mut plan = looked(1, 2);
        let mut rests = Vec::new();
        for _ in 0..8 {
            assert_eq!(plan.step(), Step::Reach(nodes(1)));
            plan.reached(nodes(1));
            for lack in lacks(2) {
                assert_eq!(plan.step(), Step::Fetch(lack, nodes(1)));
                plan.ended(Outcome::NotThere);
            }
            let Step::Rest(rest) = plan.step() else { panic!("no rest") };
            rests.push(rest.as_secs() / 60);
            assert_eq!((plan.lacking(), plan.step()), (2, Step::Look));
            plan.looked(lacks(2));
        }
        assert_eq!(rests, [1, 2, 4, 8, 16, 32, 60, 60]);
        // Where something comes, the rest may come soon.
        plan.reached(nodes(1));
        plan.ended(Outcome::Came);
        plan.ended(Outcome::NotThere);
        assert_eq!(plan.step(), Step::Rest(REST_MIN));
    }

    #[test]
    fn whoever_is_gone_is_found_out_before_the_next_is_asked_for() {
        let mut plan = looked(2, 3);
        plan.reached(nodes(2));
        plan.ended(Outcome::Unreached);
        assert_eq!(plan.step(), Step::Reach(nodes(2)));
        plan.reached(nodes(1));
        assert_eq!(plan.step(), Step::Fetch(lacks(3)[1].clone(), nodes(1)));
        plan.ended(Outcome::Unreached);
        plan.reached(Vec::new());
        assert_eq!(plan.step(), Step::Rest(REST_MIN));
        assert_eq!(plan.lacking(), 3);
    }

    #[test]
    fn a_machine_that_cannot_keep_anything_ends_the_round() {
        let mut plan = looked(1, 3);
        plan.reached(nodes(1));
        plan.ended(Outcome::Ours);
        assert_eq!((plan.lacking(), plan.step()), (3, Step::Rest(REST_MIN)));
        assert_eq!(plan.step(), Step::Look);
        plan.not_looked();
        assert_eq!((plan.lacking(), plan.step()), (3, Step::Rest(REST_MIN * 2)));
    }
}
