//! What an order is about, in bytes and from when on: what an admin sees before a signature, beside how many devices it
//! reaches. Pure.
//!
//! It errs towards more and sooner. Windows are each device's own: only that there is one to wait for is said here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sutler_orders::approvals::{Action, Approvals, Item};
use sutler_orders::text::Utc;
use sutler_orders::{Content, Halts, Kind, Order};
use sutler_protocol::ContentId;
use sutler_protocol::manifest::TargetPath;
use sutler_protocol::name::Label;

use crate::draft::Draft;
use crate::files;
use crate::halting;
use crate::state::State;

/// What an order starts, or stops if it starts nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// How many contents it is about.
    pub contents: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// When the first device may act on it.
    pub earliest: Utc,
    /// What the device then waits for.
    pub start: Start,
}

/// What a device waits for before it acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Start {
    /// Nothing.
    AtOnce,
    /// Its next window.
    InWindow,
}

/// When something begins. The earlier one is the lesser.
type Begin = (Utc, Start);

impl Outlook {
    /// Returns what a draft starts or stops at `now`, beside what is published; nothing if it does neither.
    pub fn of(draft: &Draft, state: &State, now: Utc) -> Option<Self> {
        let mut reader = Reader { draft, state, now, starts: Found::new(), stops: BTreeSet::new() };
        let (roles, paths) = draft.parts();
        for (role, path) in
            roles.iter().flat_map(|role| paths.iter().map(move |path| (role, *path)))
        {
            if let Some((kind, scope)) = files::place(role, &TargetPath::from(path)) {
                reader.look(kind, scope.as_ref(), path);
            }
        }
        let Reader { starts, stops, .. } = &reader;
        let bytes = reader.lengths();
        let sum = |ids: &mut dyn Iterator<Item = &ContentId>| {
            ids.filter_map(|id| bytes.get(id))
                .fold(0_u64, |sum, length| sum.saturating_add(*length))
        };
        if let Some(begin) = starts.values().min() {
            let (contents, bytes) = (starts.len() as u64, sum(&mut starts.keys()));
            return Some(Self { contents, bytes, earliest: begin.0, start: begin.1 });
        }
        let (contents, bytes) = (stops.len() as u64, sum(&mut stops.iter()));
        let is_any = contents > 0;
        is_any.then_some(Self { contents, bytes, earliest: now, start: Start::AtOnce })
    }
}

impl fmt::Display for Outlook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { contents, bytes, earliest, start } = self;
        let start = match start {
            Start::AtOnce => "at once",
            Start::InWindow => "in the next window of each device",
        };
        let noun = if *contents == 1 { "content" } else { "contents" };
        write!(f, "{contents} {noun}, {bytes} bytes for each device; from {earliest}, {start}")
    }
}

/// When each content begins.
type Found = BTreeMap<ContentId, Begin>;

/// Looks at what a draft changes.
struct Reader<'a> {
    draft: &'a Draft,
    state: &'a State,
    now: Utc,
    starts: Found,
    stops: BTreeSet<ContentId>,
}

impl Reader<'_> {
    fn look(&mut self, kind: Kind, scope: Option<&Label>, path: &str) {
        match (kind, scope) {
            (Kind::Approvals, Some(_)) => self.approvals(path),
            // Silence may approve whatever there is.
            (Kind::Standing, Some(_)) => {
                let ids: Vec<ContentId> = self.published().map(|(id, _)| id).collect();
                let begin = (self.now, Start::InWindow);
                self.start_all(ids.into_iter().map(|id| (id, begin)));
            }
            (Kind::Policies | Kind::Schedules, Some(scope)) => {
                self.start_all(self.approved(Some(scope)));
            }
            (Kind::Rings | Kind::Sites, None) => self.start_all(self.approved(None)),
            (Kind::Halts, None) => self.halts(path),
            _ => {}
        }
    }

    /// What approvers say anew, or no longer.
    fn approvals(&mut self, path: &str) {
        let before = self.before(path);
        // What cannot be read here is taken for everything.
        let Some(after) = self.after(path) else {
            let ids: Vec<ContentId> = self.published().map(|(id, _)| id).collect();
            let begin = (self.now, Start::AtOnce);
            return self.start_all(ids.into_iter().map(|id| (id, begin)));
        };
        let approved = begins(&after, self.now);
        let again = |id| approved.get(&id).copied().unwrap_or((self.now, Start::InWindow));
        let mut started: Vec<(ContentId, Begin)> = Vec::new();
        for item in after.items.iter().filter(|item| !before.items.contains(item)) {
            match item.action {
                Action::Install => started.push((item.blake3, begin(item, self.now))),
                _ => drop(self.stops.insert(item.blake3)),
            }
        }
        for item in before.items.iter().filter(|item| item.action != Action::Install) {
            let is_same = |other: &Item| {
                (other.action, other.bytes()) == (item.action, item.bytes())
                    && other.audience == item.audience
            };
            if !after.items.iter().any(is_same) {
                started.push((item.blake3, again(item.blake3)));
            }
        }
        let resumed = after.resumed.iter().filter(|one| !before.resumed.contains(one));
        for ids in resumed.map(|one| &one.contents) {
            if ids.is_empty() {
                started.extend(approved.iter().map(|(id, begin)| (*id, *begin)));
            } else {
                started.extend(ids.iter().map(|id| (*id, again(*id))));
            }
        }
        let goes_on = after.withdrawn.iter().any(|one| !before.withdrawn.contains(one))
            || before.countersigned.iter().any(|one| !after.countersigned.contains(one));
        if goes_on {
            started.extend(approved.iter().map(|(id, begin)| (*id, *begin)));
        }
        let held = after.countersigned.iter().filter(|one| !before.countersigned.contains(one));
        let held: BTreeSet<&Label> = held.map(|one| &one.halt).collect();
        let halts = halting::halts(self.state).unwrap_or_default();
        for halt in halts.iter().filter(|halt| held.contains(&halt.id)) {
            self.stop(&halt.contents);
        }
        self.start_all(started);
    }

    fn halts(&mut self, path: &str) {
        let read = |bytes: &[u8]| Order::<Halts>::read(bytes).ok().map(|order| order.body.halts);
        let before = self.state.orders.get(&TargetPath::from(path)).and_then(|bytes| read(bytes));
        let before = before.unwrap_or_default();
        let after = self.draft.file(path).and_then(|bytes| read(bytes)).unwrap_or_default();
        for halt in after.iter().filter(|halt| !before.contains(halt)) {
            self.stop(&halt.contents);
        }
    }

    /// Takes down that contents stop: all if none is named.
    fn stop(&mut self, contents: &[ContentId]) {
        if contents.is_empty() {
            let all: Vec<ContentId> = self.published().map(|(id, _)| id).collect();
            self.stops.extend(all);
        }
        self.stops.extend(contents);
    }

    /// Takes down that contents start; the earliest of each counts.
    fn start_all(&mut self, contents: impl IntoIterator<Item = (ContentId, Begin)>) {
        for (id, begin) in contents {
            let known = self.starts.entry(id).or_insert(begin);
            *known = (*known).min(begin);
        }
    }

    /// Returns what is approved in a scope, or in any, once the draft is published.
    fn approved(&self, scope: Option<&Label>) -> Found {
        let place = scope.and_then(|scope| Kind::Approvals.target(Some(scope)));
        let paths = self.state.orders.keys().map(TargetPath::as_str);
        let mut paths: BTreeSet<&str> = paths.chain(self.draft.parts().1).collect();
        paths.retain(|path| path.starts_with("approvals/") && path.ends_with("/approvals.json"));
        let is_meant = |path: &&str| place.as_ref().is_none_or(|(_, place)| place == path);
        let mut found = Found::new();
        for path in paths.into_iter().filter(is_meant) {
            let approvals = self.after(path).unwrap_or_else(|| self.before(path));
            for (id, begin) in begins(&approvals, self.now) {
                let known = found.entry(id).or_insert(begin);
                *known = (*known).min(begin);
            }
        }
        found
    }

    fn before(&self, path: &str) -> Approvals {
        let bytes = self.state.orders.get(&TargetPath::from(path));
        bytes.and_then(|bytes| read(bytes)).unwrap_or_default()
    }

    fn after(&self, path: &str) -> Option<Approvals> {
        read(self.draft.file(path)?)
    }

    fn published(&self) -> impl Iterator<Item = (ContentId, u64)> {
        let contents = self.state.contents();
        let contents = contents.filter_map(|(path, file)| Content::of(&path, file).ok());
        contents.map(|content| (content.bytes.blake3, content.bytes.length))
    }

    /// Returns the length of each content that is published or decided about.
    fn lengths(&self) -> BTreeMap<ContentId, u64> {
        let paths = self.draft.parts().1;
        let decided = paths.iter().filter_map(|path| self.after(path));
        let before = paths.iter().map(|path| self.before(path));
        let items = decided.chain(before).flat_map(|approvals| approvals.items);
        items.map(|item| (item.blake3, item.length)).chain(self.published()).collect()
    }
}

fn read(bytes: &[u8]) -> Option<Approvals> {
    Order::<Approvals>::read(bytes).ok().map(|order| order.body)
}

/// Returns when each content begins that is approved.
fn begins(approvals: &Approvals, now: Utc) -> Found {
    let mut found = Found::new();
    for item in approvals.items.iter().filter(|item| item.action == Action::Install) {
        let known = found.entry(item.blake3).or_insert_with(|| begin(item, now));
        *known = (*known).min(begin(item, now));
    }
    found
}

fn begin(item: &Item, now: Utc) -> Begin {
    let start = if item.patch_now { Start::AtOnce } else { Start::InWindow };
    (item.not_before.map_or(now, |from| from.max(now)), start)
}
