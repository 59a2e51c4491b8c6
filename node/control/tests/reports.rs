//! Reports that are forged, replayed or late: whoever brings them, control keeps the newest that the device itself
//! has signed.

use bytes::Bytes;
use sutler_control::reports::{Keeper, read};
use sutler_orders::answer::State;
use sutler_orders::report::{PURPOSE, Report, ToldAnswer, ToldFacts};
use sutler_protocol::ContentId;
use sutler_swarm::identity::{
    Authority, Expect, Identity, LEAF_LIFETIME, Member, PeerName, PeerVerifier, Role, TrustedClock,
    Validity,
};
use sutler_swarm::orders::{NotTaken, Reports as _};
use tempfile::TempDir;

struct World {
    folder: TempDir,
    authority: Authority,
}

impl World {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let authority =
            Authority::create(&folder.path().join("org"), "acme".parse().unwrap()).unwrap();
        Self { folder, authority }
    }

    fn device(&self, id: &str) -> Identity {
        let member = Member::Agent { site: "cologne".parse().unwrap(), id: id.parse().unwrap() };
        self.member(id, member)
    }

    fn member(&self, folder: &str, member: Member) -> Identity {
        let folder = self.folder.path().join(folder);
        self.authority.issue(member, Validity::from_now(LEAF_LIFETIME), &folder).unwrap();
        Identity::load(&folder).unwrap()
    }

    /// What control keeps, as it is after a start.
    fn keeper(&self, roots: &Identity) -> Keeper {
        let expect = Expect::new("acme".parse().unwrap(), [Role::Agent]);
        let verifier = PeerVerifier::new(roots.roots(), expect).unwrap();
        let folder = self.folder.path().join("reports");
        Keeper::open(&folder, "acme".parse().unwrap(), verifier, TrustedClock::default()).unwrap()
    }

    /// The numbers of what is kept.
    fn kept(&self) -> Vec<u64> {
        let kept = read(&self.folder.path().join("reports"), &"acme".parse().unwrap()).unwrap();
        kept.into_iter().map(|report| report.number).collect()
    }
}

fn report(device: &str, number: u64) -> Report {
    Report {
        organisation: "acme".parse().unwrap(),
        device: device.parse().unwrap(),
        number,
        written: "2026-11-27T20:00:00Z".parse().unwrap(),
        program: "sutler 0.1.0".parse().unwrap(),
        facts: ToldFacts::default(),
        statement: None,
        observes: false,
        answers: vec![ToldAnswer {
            content: ContentId::of(b"x"),
            state: State::Installed,
            reason: None,
            detail: None,
            attempts: 1,
        }],
        left_out: 0,
    }
}

fn signed(report: &Report, by: &Identity) -> Bytes {
    let attested = by.attest(PURPOSE, &report.message().unwrap()).unwrap();
    report.envelope(&attested.chain, &attested.signature).unwrap().into()
}

fn refused(taken: &Result<(), NotTaken>) -> bool {
    matches!(taken, Err(NotTaken::Refused(_)))
}

// T26
#[test]
fn a_replayed_or_reordered_report_is_refused_also_after_a_start() {
    let world = World::new();
    let anna = world.device("anna");
    let node: PeerName = "spiffe://acme/site/cologne/node/n1".parse().unwrap();
    let [first, second, third] =
        [1, 2, 3].map(|number| signed(&report("cologne/anna", number), &anna));
    let keeper = world.keeper(&anna);
    keeper.take(&node, first.clone()).unwrap();
    keeper.take(&node, third.clone()).unwrap();
    for late in [&first, &second, &third] {
        assert!(refused(&keeper.take(&node, late.clone())));
    }
    drop(keeper);
    let keeper = world.keeper(&anna);
    for late in [&first, &second, &third] {
        assert!(refused(&keeper.take(&node, late.clone())));
    }
    assert_eq!(world.kept(), [3]);
    // The device itself goes on, whoever carries it.
    keeper.take(anna.name(), signed(&report("cologne/anna", 4), &anna)).unwrap();
    assert_eq!(world.kept(), [4]);
}

// T26
#[test]
fn a_report_that_its_device_did_not_sign_is_refused() {
    let (world, elsewhere) = (World::new(), World::new());
    let (anna, ben) = (world.device("anna"), world.device("ben"));
    let node = Member::Node { site: "cologne".parse().unwrap(), id: "anna".parse().unwrap() };
    let node = world.member("node", node);
    let (keeper, own) = (world.keeper(&anna), report("cologne/anna", 7));
    let genuine = signed(&own, &anna);
    let text = String::from_utf8(genuine.to_vec()).unwrap();
    let other = report("cologne/anna", 8);
    let attested = anna.attest(PURPOSE, &own.message().unwrap()).unwrap();
    let elsewhere_anna = elsewhere.device("anna");
    for (what, forged) in [
        ("a neighbour", signed(&own, &ben)),
        ("its node, of the same name", signed(&own, &node)),
        ("a namesake of another authority", signed(&own, &elsewhere_anna)),
        ("a changed word", text.replacen("\"installed\"", "\"failed\"", 1).into()),
        ("a higher number", text.replacen("\"number\":7", "\"number\":9", 1).into()),
        ("a signature of another report", {
            other.envelope(&attested.chain, &attested.signature).unwrap().into()
        }),
        ("no signature", own.envelope(&attested.chain, &[]).unwrap().into()),
        ("no certificate", own.envelope(&[], &attested.signature).unwrap().into()),
        ("another purpose", {
            let attested = anna.attest("token 1", &own.message().unwrap()).unwrap();
            own.envelope(&attested.chain, &attested.signature).unwrap().into()
        }),
        ("the half of it", genuine.slice(..genuine.len() / 2)),
    ] {
        assert!(refused(&keeper.take(anna.name(), forged)), "{what}");
    }
    assert!(world.kept().is_empty());
    keeper.take(ben.name(), genuine).unwrap();
    assert_eq!(world.kept(), [7]);
}
