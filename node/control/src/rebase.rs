//! Two admins collide: what the second wanted is put on top of what the first has published.
//!
//! Pure. What a draft changed is found by comparing it with the version that it was made from, entry by entry, and done
//! once more to what is published now. Where both changed the same thing, a person has to look. Signatures do not
//! survive: what was signed is another document now.

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value};
use sutler_orders::text::Utc;
use sutler_protocol::manifest::sign::ProposeError;
use sutler_protocol::manifest::{
    Believed, Expires, RoleName, Signed, TargetFile, TargetPath, Targets, Version,
};

use crate::draft::Draft;
use crate::preset::TARGETS_LIFETIME;
use crate::state::{State, is_content};

/// What a draft was made from, for whoever has kept it.
pub struct History<'a> {
    /// The document of a role's version.
    pub document: &'a dyn Fn(&RoleName, Version) -> Option<Bytes>,
    /// An order file, as a document names it.
    pub file: &'a dyn Fn(&TargetPath, &TargetFile) -> Option<Bytes>,
}

/// Why a draft cannot be put on top of what is published.
#[derive(Debug, thiserror::Error)]
pub enum RebaseError {
    /// A new root is signed anew from what is published, not merged.
    #[error("rebase a new root: make it anew, it lists all keys there are")]
    Root,
    /// What it was made from is not here.
    #[error("rebase {role}: version {version}, which it was made from, is not here")]
    NoBase {
        /// Which role.
        role: RoleName,
        /// Which version.
        version: u64,
    },
    /// An order file of what it was made from is not here.
    #[error("rebase {path}: the file that it was made from is not here")]
    NoBaseFile {
        /// Which file.
        path: TargetPath,
    },
    /// A document or file of it cannot be read.
    #[error("rebase {what}: it cannot be read")]
    Unreadable {
        /// Which.
        what: String,
    },
    /// Both have changed the same thing.
    #[error("rebase {what}: both have changed its field {field}")]
    Conflict {
        /// Which role or file.
        what: String,
        /// Where in it.
        field: String,
    },
    /// Nobody would believe the outcome.
    #[error("rebase {role}")]
    Propose {
        /// Which role.
        role: RoleName,
        /// Why.
        source: ProposeError,
    },
}

/// Returns the draft as it would be had it been made from what is published now. Nobody has signed it.
///
/// # Errors
///
/// [`RebaseError`].
pub fn rebase(
    draft: &Draft,
    state: &State,
    history: &History<'_>,
    now: Timestamp,
) -> Result<Draft, RebaseError> {
    let mut rebased = Draft::new();
    for role in draft.parts().0 {
        if role == RoleName::root() {
            return Err(RebaseError::Root);
        }
        let unreadable = || RebaseError::Unreadable { what: role.to_string() };
        let mine = draft.role(&role).ok_or_else(unreadable)?;
        let theirs = if role == RoleName::targets() {
            Some(state.targets.document())
        } else {
            state.roles.get(&role).map(Believed::document)
        };
        let base = base(&role, &mine, history)?;
        let expires = now.checked_add(TARGETS_LIFETIME).map(Expires::at);
        let (Ok(expires), Some(version)) = (expires, state.next_version(&role)) else {
            return Err(unreadable());
        };
        let none = Targets::new(Version::FIRST, expires);
        let theirs = theirs.unwrap_or(&none);
        let what = role.to_string();
        let merged =
            merge(&what, "", &bare(base.as_ref().unwrap_or(&none)), &bare(&mine), &bare(theirs))?;
        let mut document: Targets = serde_json::from_value(merged).map_err(|_| unreadable())?;
        document.renew(version, expires);
        for (path, file) in theirs.files().filter(|(path, _)| !is_content(path)) {
            document.set_file(&path, file.clone());
        }
        for (path, _) in mine.files().filter(|(path, _)| !is_content(path)) {
            let Some(bytes) = draft.file(path.as_str()) else { continue };
            let before = base.as_ref().and_then(|base| base.file(&path));
            // Without it, what the other one took away would come back.
            let missing = || RebaseError::NoBaseFile { path: path.clone() };
            let before = before.map(|file| (history.file)(&path, file).ok_or_else(missing));
            let before = before.transpose()?;
            let bytes = file(&path, before, bytes, state.orders.get(&path), now)?;
            document.set_file(&path, TargetFile::of(&bytes));
            rebased.set_file(path.as_str().to_owned(), bytes);
        }
        let proposal = Signed::propose(&document)
            .map_err(|source| RebaseError::Propose { role: role.clone(), source })?;
        rebased.set_role(role, proposal);
    }
    Ok(rebased)
}

/// Returns the document that a draft's was made from; nothing before the first.
fn base(
    role: &RoleName,
    mine: &Targets,
    history: &History<'_>,
) -> Result<Option<Targets>, RebaseError> {
    let before = mine.version().number() - 1;
    let Some(version) = Version::new(before) else { return Ok(None) };
    let bytes = (history.document)(role, version);
    let bytes = bytes.ok_or_else(|| RebaseError::NoBase { role: role.clone(), version: before })?;
    let parsed = Signed::<Targets>::parse(bytes).ok().and_then(|signed| signed.proposed().ok());
    parsed.map(Some).ok_or_else(|| RebaseError::Unreadable { what: role.to_string() })
}

/// Returns what of a document is merged entry by entry: not its version and expiry, nor its order files, which are
/// merged themselves, nor the note of its last change.
fn bare(document: &Targets) -> Value {
    let mut value = serde_json::to_value(document).expect("documents are JSON");
    value["version"] = 1.into();
    value["expires"] = "2000-01-01T00:00:00Z".into();
    if let Some(files) = value["targets"].as_object_mut() {
        files.retain(|path, _| is_content(&TargetPath::from(path.as_str())));
    }
    value
}

/// Merges an order file, and gives it the number and instant that come next.
fn file(
    path: &TargetPath,
    base: Option<Bytes>,
    mine: &Bytes,
    theirs: Option<&Bytes>,
    now: Timestamp,
) -> Result<Bytes, RebaseError> {
    let unreadable = || RebaseError::Unreadable { what: path.to_string() };
    let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).map_err(|_| unreadable());
    let Some(theirs) = theirs else { return Ok(mine.clone()) };
    let theirs = parse(theirs)?;
    let base = base.map_or_else(|| Ok(Value::Object(Map::new())), |base| parse(&base))?;
    let mine = parse(mine)?;
    let seq = theirs["seq"].as_u64().and_then(|seq| seq.checked_add(1)).ok_or_else(unreadable)?;
    let plain = |value: &Value| {
        let mut value = value.clone();
        if let Value::Object(fields) = &mut value {
            fields.remove("seq");
            fields.remove("issued");
        }
        value
    };
    let mut merged = merge(path.as_str(), "", &plain(&base), &plain(&mine), &plain(&theirs))?;
    merged["seq"] = seq.into();
    merged["issued"] = Utc::of(now).to_string().into();
    let mut bytes = serde_json::to_vec_pretty(&merged).map_err(|_| unreadable())?;
    bytes.push(b'\n');
    Ok(bytes.into())
}

/// Does to `theirs` what made `mine` of `base`. A list is a set of its entries.
fn merge(
    what: &str,
    field: &str,
    base: &Value,
    mine: &Value,
    theirs: &Value,
) -> Result<Value, RebaseError> {
    if mine == base || mine == theirs {
        return Ok(theirs.clone());
    }
    // The note says who made the change that comes last.
    if theirs == base || field == ".sutler.change" {
        return Ok(mine.clone());
    }
    match (mine, theirs) {
        (Value::Array(mine), Value::Array(theirs)) => {
            let base = base.as_array().map_or(&[][..], Vec::as_slice);
            let gone = |entry: &&Value| base.contains(entry) && !mine.contains(entry);
            let new = mine.iter().filter(|entry| !base.contains(entry) && !theirs.contains(entry));
            let kept = theirs.iter().filter(|entry| !gone(entry));
            Ok(Value::Array(kept.chain(new).cloned().collect()))
        }
        (Value::Object(mine), Value::Object(theirs)) => {
            let none = Map::new();
            let base = base.as_object().unwrap_or(&none);
            let names = mine.keys().chain(theirs.keys().filter(|name| !mine.contains_key(*name)));
            let mut merged = Map::new();
            for name in names {
                let of = |map: &Map<String, Value>| map.get(name).cloned().unwrap_or(Value::Null);
                let field = format!("{field}.{name}");
                let value = merge(what, &field, &of(base), &of(mine), &of(theirs))?;
                if !value.is_null() {
                    merged.insert(name.clone(), value);
                }
            }
            Ok(Value::Object(merged))
        }
        _ => Err(RebaseError::Conflict { what: what.to_owned(), field: field.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_one_did_is_done_to_what_the_other_has_made() {
        let base = json!({ "items": [1, 2], "a": { "x": 1 } });
        let mine = json!({ "items": [2, 3], "a": { "x": 1, "y": 2 } });
        let theirs = json!({ "items": [1, 2, 4], "a": { "x": 5 } });
        let merged = merge("f", "", &base, &mine, &theirs).unwrap();
        assert_eq!(merged, json!({ "items": [2, 4, 3], "a": { "x": 5, "y": 2 } }));
    }

    #[test]
    fn where_both_changed_one_thing_a_person_has_to_look() {
        let base = json!({ "a": { "x": 1 } });
        let (mine, theirs) = (json!({ "a": { "x": 2 } }), json!({ "a": { "x": 3 } }));
        let error = merge("f", "", &base, &mine, &theirs).unwrap_err();
        assert_eq!(error.to_string(), "rebase f: both have changed its field .a.x");
        // The same change twice is one.
        assert_eq!(merge("f", "", &base, &mine, &mine).unwrap(), mine);
    }
}
