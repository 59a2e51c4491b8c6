//! Machines that follow control through each other.

use std::fs;

use bytes::Bytes;
use sutler_orders::Order;
use sutler_orders::admission::{Revocation, Revocations};
use sutler_orders::approvals::Approvals;
use sutler_orders::halts::Halts;
use sutler_swarm::orders::Orders as _;
use sutler_swarm::peer::RequestError;

use super::organisation::{Organisation, approvals_path, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_control_signs_reaches_an_agent_through_its_node() {
    let organisation = Organisation::new();
    let mut control = organisation.control();
    let node = organisation.follower(None, &[control.machine.address]);
    let agent = organisation.follower(None, &[node.address]);
    agent.believes(2).await;
    let before = agent.version();

    control.set(&organisation, "halts", None, 2, Halts::default());
    agent.believes(before + 1).await;
    node.believes(before + 1).await;
    let manifest = agent.board.manifest().borrow().clone().unwrap();
    let approvals = Order::<Approvals>::read(&manifest.files[&approvals_path()]).unwrap();
    assert_eq!(approvals.head.seq, 1);
    assert!(manifest.statement.issued.is_some());
    assert_eq!(manifest.roles.refused().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_believed_survives_a_kill_and_needs_no_line() {
    let organisation = Organisation::new();
    let control = organisation.control();
    let node = organisation.follower(None, &[control.machine.address]);
    node.believes(2).await;
    let folder = node.kill().await;
    drop(control);

    let again = organisation.follower(Some(&folder), &[]);
    assert_eq!(again.version(), 2);
    // And it passes on what it believes.
    let agent = organisation.follower(None, &[again.address]);
    agent.believes(2).await;
}

// N2, T29
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_denial_spreads_from_neighbour_to_neighbour_without_control() {
    let organisation = Organisation::new();
    let control = organisation.control();
    let node = organisation.follower(None, &[control.machine.address]);
    let near = organisation.follower(None, &[node.address]);
    let far = organisation.follower(None, &[near.address]);
    far.believes(2).await;
    drop(control);

    let denial = organisation.denial(b"content", "approvals-qa");
    let peer = far.endpoint.connect(far.address).await.unwrap();
    peer.deny(&denial).await.unwrap();
    node.holds_denials(1).await;
    assert_eq!(near.board.denials().len(), 1);

    // It is kept, and known already where it comes again.
    peer.deny(&denial).await.unwrap();
    assert_eq!(far.board.denials().len(), 1);
    let folder = node.kill().await;
    let again = organisation.follower(Some(&folder), &[]);
    assert_eq!(again.board.denials().len(), 1);
    assert_eq!(again.board.news().borrow().denials, [denial]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_denial_that_no_approver_signed_is_not_taken() {
    let organisation = Organisation::new();
    let control = organisation.control();
    let node = organisation.follower(None, &[control.machine.address]);
    node.believes(2).await;
    let peer = node.endpoint.connect(node.address).await.unwrap();
    for (denial, why) in [
        // Control's own keys cannot speak for an approver.
        (organisation.denial(b"content", "halts"), "check the denial's signatures"),
        (Bytes::from("{}"), "read the denial"),
    ] {
        let error = peer.deny(&denial).await.unwrap_err();
        assert!(matches!(error, RequestError::Refused(_)), "{error:?}");
        assert!(error.to_string().contains(why), "{error}");
    }
    assert!(node.board.denials().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_approver_withdraws_a_denial() {
    let organisation = Organisation::new();
    let mut control = organisation.control();
    let node = organisation.follower(None, &[control.machine.address]);
    node.believes(2).await;
    let denial = organisation.denial(b"content", "approvals-qa");
    node.endpoint.connect(node.address).await.unwrap().deny(&denial).await.unwrap();
    node.holds_denials(1).await;
    let withdrawn = vec!["d1".parse().unwrap()];
    let approvals = Approvals { withdrawn, ..Approvals::default() };
    control.set(&organisation, "approvals-qa", Some("qa"), 2, approvals);
    node.holds_denials(0).await;
    assert!(node.board.denials().is_empty());
}

// T22, T29: by those whom the directorate names; and whoever breaks its document takes no denial away.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_denial_by_a_directorates_approver_holds_whatever_befalls_the_directorate() {
    let organisation = Organisation::new();
    let mut control = organisation.control();
    control.leave_to_directorate(&organisation, "root");
    let node = organisation.follower(None, &[control.machine.address]);
    node.believes(control.version()).await;
    let deny = |denial: Bytes| {
        let node = &node;
        async move { node.endpoint.connect(node.address).await.unwrap().deny(&denial).await }
    };
    // Its heads say who approves, and are no approvers.
    let error = deny(organisation.denial(b"content", "root")).await.unwrap_err();
    assert!(error.to_string().contains("check the denial's signatures"), "{error}");
    deny(organisation.denial(b"content", "approvals-qa")).await.unwrap();
    node.holds_denials(1).await;

    control.leave_to_directorate(&organisation, "halts");
    node.believes(control.version()).await;
    assert_eq!(node.board.denials().len(), 1);
    let error = deny(organisation.denial(b"other", "approvals-qa")).await.unwrap_err();
    assert!(error.to_string().contains("staff-qa is not believed"), "{error}");

    // It is kept for the day on which it can be judged.
    control.machine.kill().await;
    let again = organisation.follower(Some(&node.kill().await), &[]);
    assert_eq!(fs::read_dir(again.folder.join("denials")).unwrap().count(), 1);
}

// T19
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_revocation_travels_with_the_orders_and_closes_what_is_open() {
    let organisation = Organisation::new();
    let mut control = organisation.control();
    let node = organisation.follower(None, &[control.machine.address]);
    let agent = organisation.follower(None, &[node.address]);
    agent.believes(2).await;
    let mut watch = soon("the watch", async {
        // One of the agent's own name watches already, on a connection of its own.
        agent.endpoint.connect(node.address).await.unwrap().watch().await
    })
    .await
    .unwrap();
    let revocation = Revocation {
        member: agent.endpoint.name().clone(),
        until: None,
        by: "anna".parse().unwrap(),
        at: "2026-11-27T20:00:00Z".parse().unwrap(),
        reason: None,
    };
    let revocations = Revocations { revocations: vec![revocation] };
    control.set(&organisation, "admission", None, 1, revocations);
    soon("the end", async { while watch.next().await.is_ok() {} }).await;
    let refused = agent.endpoint.connect(node.address).await;
    // A server judges a certificate when its client has the connection already.
    let refused = match refused {
        Err(_) => true,
        Ok(peer) => soon("the refusal", peer.watch()).await.is_err(),
    };
    assert!(refused);
}

// T4: who keeps one order back brings about nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_manifest_without_one_of_its_files_is_not_heeded() {
    let organisation = Organisation::new();
    let mut control = organisation.control();
    let node = organisation.follower(None, &[control.machine.address]);
    node.believes(2).await;
    control.set(&organisation, "approvals-qa", Some("qa"), 2, Approvals::default());
    node.believes(3).await;

    let mut shown = node.board.manifest();
    let seen = tokio::spawn(async move {
        let mut seen = Vec::new();
        while seen.last() != Some(&5) && shown.changed().await.is_ok() {
            let manifest = shown.borrow_and_update().clone();
            seen.extend(manifest.map(|manifest| manifest.statement.version.number()));
        }
        seen
    });
    let before = control.machine.counters.requests_refused.value();
    control.hold_back(&organisation, 3);
    let asked = async {
        while control.machine.counters.requests_refused.value() == before {
            tokio::task::yield_now().await;
        }
    };
    soon("it has asked for what is held back", asked).await;
    assert_eq!(node.version(), 3);
    // The next that is whole is believed; the one between never was.
    control.set(&organisation, "halts", None, 3, Halts::default());
    assert_eq!(soon("the next", seen).await.unwrap(), [5]);
}

// T13, T10: a stolen timestamp key writes a year into its statements in which every certificate has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_statement_issued_in_2099_cuts_nobody_off() {
    let organisation = Organisation::new();
    let mut control = organisation.control();
    let node = organisation.follower(None, &[control.machine.address]);
    let agent = organisation.follower(None, &[node.address]);
    agent.believes(2).await;
    control.says_it_is("2099-01-01T00:00:00Z");
    control.publish(&organisation, |_| true);
    agent.believes(3).await;
    // Connections are made on, also by who begins with that statement.
    agent.endpoint.connect(node.address).await.unwrap().watch().await.unwrap();
    let folder = agent.kill().await;
    let agent = organisation.follower(Some(&folder), &[node.address]);
    assert_eq!(agent.version(), 3);
    agent.endpoint.connect(node.address).await.unwrap().watch().await.unwrap();

    // So the way out reaches everybody: another key, whose statements count whatever the thief's said.
    control.gets_another_key(&organisation);
    control.publish(&organisation, |_| true);
    agent.believes(4).await;
    let manifest = agent.board.manifest().borrow().clone().unwrap();
    let issued = manifest.statement.issued.unwrap();
    assert!(issued <= jiff::Timestamp::now() && manifest.statement.version.number() == 4);
}

// R96
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reports_wait_for_the_line_and_arrive_in_order() {
    let organisation = Organisation::new();
    let control = organisation.control();
    let node = organisation.follower(None, &[control.machine.address]);
    let agent = organisation.follower(None, &[node.address]);
    agent.believes(2).await;
    let reports = ["one", "two", "three"].map(Bytes::from);
    let own = agent.endpoint.connect(agent.address).await.unwrap();
    for report in &reports {
        own.report(report).await.unwrap();
    }
    let arrived = || control.reports.0.lock().unwrap().clone();
    soon("the reports", async {
        while arrived().len() < reports.len() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(arrived(), reports);
}
