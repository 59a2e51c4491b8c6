//! Which stop a published version of a scope's approvals brought, and what held before it: from what lies in the repository,
//! for whoever asks later how far it has got.

use std::collections::BTreeSet;
use std::io;

use bytes::Bytes;
use sutler_orders::approvals::{Action, Approvals, Item};
use sutler_orders::audience::Audience;
use sutler_orders::{Kind, Order};
use sutler_protocol::manifest::{Believed, RoleName, Signed, TargetPath, Targets, Version};
use sutler_protocol::name::Label;

use crate::repository::Repository;
use crate::spread::Stop;
use crate::state::State;

/// Returns what `version` of a scope's approvals stopped that the version before it did not, for devices that know the
/// version `orders` of the timestamp; and what is published now, but for these approvals, which are those of before.
/// Nothing if that version stopped nothing, is not published, or was signed by others than those who sign now.
///
/// # Errors
///
/// What the disk answered.
pub fn stop_of(
    repository: &Repository,
    state: &State,
    scope: &Label,
    version: Version,
    orders: u64,
) -> io::Result<Option<(Stop, State)>> {
    let Some((role, path)) = Kind::Approvals.target(Some(scope)) else { return Ok(None) };
    let Some(role) = RoleName::delegated(&role) else { return Ok(None) };
    if state.roles.get(&role).is_none_or(|known| known.version() < version) {
        return Ok(None);
    }
    let reader = Reader { repository, state, role };
    let Some(after) = reader.document(version)? else { return Ok(None) };
    let before = match Version::new(version.number() - 1) {
        None => None,
        Some(before) => match reader.document(before)? {
            None => return Ok(None),
            before => before,
        },
    };
    let path = TargetPath::from(path.as_str());
    let new = reader.items(&after, &path)?;
    let old = before.as_ref().map_or(Ok(Vec::new()), |before| reader.items(before, &path))?;
    let is_new = |item: &&Item| item.action != Action::Install && !old.contains(item);
    let stops: Vec<&Item> = new.iter().filter(is_new).collect();
    let Some(first) = stops.first() else { return Ok(None) };
    // Several stops at once are one, for whomever any of them is for: too many rather than too few.
    let is_one = stops.iter().all(|item| item.audience == first.audience);
    let audience = if is_one { first.audience.clone() } else { Audience::default() };
    let contents: BTreeSet<_> = stops.iter().map(|item| item.blake3).collect();
    let stop = Stop { contents, scope: Some(scope.clone()), audience, version: orders };
    Ok(Some((stop, reader.before(before)?)))
}

struct Reader<'a> {
    repository: &'a Repository,
    state: &'a State,
    role: RoleName,
}

impl Reader<'_> {
    /// Returns the role's document of a version, if those who sign for it now have signed it.
    fn document(&self, version: Version) -> io::Result<Option<Believed<Targets>>> {
        let Some(bytes) = self.repository.document(&self.role, version)? else { return Ok(None) };
        let keys = self.state.keys_of(&self.role);
        let signed = Signed::<Targets>::parse(bytes).ok();
        let believed = signed.zip(keys).and_then(|(signed, keys)| signed.verify(&keys).ok());
        Ok(believed.filter(|believed| believed.version() == version))
    }

    fn items(&self, of: &Believed<Targets>, path: &TargetPath) -> io::Result<Vec<Item>> {
        let Some(file) = of.document().file(path) else { return Ok(Vec::new()) };
        let order = Order::<Approvals>::read(&self.repository.file(path, file)?);
        order.map(|order| order.body.items).map_err(io::Error::other)
    }

    /// Returns what is published, with an earlier document of the role or none.
    fn before(&self, earlier: Option<Believed<Targets>>) -> io::Result<State> {
        let mut state = self.state.clone();
        let now = state.roles.remove(&self.role);
        for (path, _) in now.iter().flat_map(|now| now.document().files()) {
            state.orders.remove(&path);
        }
        if let Some(earlier) = earlier {
            for (path, file) in earlier.document().files() {
                let bytes: Bytes = self.repository.file(&path, file)?;
                state.orders.insert(path, bytes);
            }
            state.roles.insert(self.role.clone(), earlier);
        }
        Ok(state)
    }
}
