//! Where we go and where not: redirects, names, addresses, proxies.

use std::sync::Arc;

use reqwest::dns::Resolve;
use sutler_swarm::origin::{
    AllowEntry, Blame, OriginConfig, OriginError, Origins, ProxyEnvironment, Refused, Validators,
};
use url::Url;

use crate::server::{Answer, Server};
use crate::{Loopback, config, file, of, origins, read, whole};

#[tokio::test]
async fn a_redirect_to_an_allowed_place_is_followed() {
    let file = file();
    let target = Server::start(Answer::file(&file)).await;
    let first = Server::start(Answer::redirect(target.url("/real?sig=secret").as_str())).await;
    let allow = [&first, &target].map(|server| AllowEntry::private(server.url("").as_str()));
    let origins = origins(&config(allow.to_vec()));
    let found = origins.probe(&first.url("/a")).await.expect("a probe");
    assert_eq!(found.final_url, target.url("/real?sig=secret"));
    assert_eq!(read(&origins, &first.url("/a"), 5..9).await.expect("bytes"), &file[5..9]);
    assert!(target.requests()[0].contains("range: bytes=0-0"));
    assert!(!target.requests()[0].contains("referer"));

    let round = Server::start(Answer::redirect("/again")).await;
    let error = whole(&of(&round), &round.url("/a")).await.expect_err("a loop");
    assert!(matches!(error, OriginError::RedirectLoop { .. }), "{error:?}");
    assert_eq!(round.requests().len(), 6);
}

// T16
#[tokio::test]
async fn a_redirect_inside_or_elsewhere_makes_no_connection() {
    let inside = Server::start(Answer::text("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).await;
    let port = inside.port();
    for target in [
        format!("http://127.0.0.1:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("//127.0.0.1:{port}/"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        format!("http://other.example:{port}/"),
        "https://mirror.example/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "http://user:secret@mirror.example/".to_owned(),
        "http://[".to_owned(),
    ] {
        let mirror = Server::start(Answer::redirect(&target)).await;
        let url: Url = format!("http://mirror.example:{}/a", mirror.port()).parse().expect("a URL");
        let origins = origins(&config(vec![AllowEntry::private(url.join("/").expect("a URL"))]));
        let error = whole(&origins, &url).await.expect_err(&target);
        assert!(matches!(error, OriginError::RedirectRefused { .. }), "{target}: {error:?}");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        assert!(error.is_final());
    }
    assert_eq!(inside.connections(), 0);
}

// T16
#[tokio::test]
async fn an_allowed_name_that_leads_inside_makes_no_connection() {
    let inside = Server::start(Answer::file(&file())).await;
    let url: Url = format!("http://mirror.example:{}/a", inside.port()).parse().expect("a URL");
    let root = url.join("/").expect("a URL");
    let guarded = origins(&config(vec![AllowEntry::public(root.clone())]));
    let error = whole(&guarded, &url).await.expect_err("loopback");
    assert!(matches!(error, OriginError::Address { .. }), "{error:?}");
    assert_eq!(error.blame(), Blame::Path);
    assert_eq!(inside.connections(), 0);

    // The same name behind a redirect.
    let first = Server::start(Answer::redirect(url.as_str())).await;
    let allow = vec![AllowEntry::private(first.url("").as_str()), AllowEntry::public(root.clone())];
    let error = whole(&origins(&config(allow)), &first.url("/a")).await.expect_err("loopback");
    assert!(matches!(error, OriginError::Address { .. }), "{error:?}");
    assert_eq!(inside.connections(), 0);

    // A connection that one origin may have is not another's.
    let open = AllowEntry::private(root.join("/open").expect("a URL"));
    let both = origins(&config(vec![AllowEntry::public(root), open]));
    read(&both, &url.join("/open/a").expect("a URL"), 0..1).await.expect("it may be inside");
    let error = read(&both, &url, 0..1).await.expect_err("this may not");
    assert!(matches!(error, OriginError::Address { .. }), "{error:?}");
    assert_eq!(inside.connections(), 1);
}

// T16
#[tokio::test]
async fn what_the_list_does_not_cover_makes_no_connection() {
    let server = Server::start(Answer::file(&file())).await;
    let allow = AllowEntry::private(server.url("/debian").as_str());
    let origins = origins(&config(vec![allow]));
    for path in ["/other", "/debian-security/a", "/debian/..%2fother", "/debian/../other"] {
        let error = whole(&origins, &server.url(path)).await.expect_err(path);
        assert!(matches!(error, OriginError::Refused { .. }), "{path}: {error:?}");
        assert_eq!(error.blame(), Blame::Asker);
        origins.probe(&server.url(path)).await.expect_err(path);
        origins.read(&server.url(path), 0..0, &Validators::default()).await.expect_err(path);
        assert!(matches!(
            origins.permits(&server.url(path)),
            Err(Refused::NotAllowed { .. } | Refused::Ambiguous)
        ));
    }
    assert_eq!(server.connections(), 0);
    origins.permits(&server.url("/debian/a")).expect("covered");
}

#[tokio::test]
async fn a_proxy_gets_the_whole_url_and_no_private_address() {
    let file = file();
    let proxy = Server::start(Answer::file(&file)).await;
    let config = OriginConfig {
        proxy: Some(format!("http://user:pass@proxy.lan:{}", proxy.port())),
        ..config(vec![AllowEntry::public("http://mirror.example")])
    };
    let origins = origins(&config);
    let url = "http://mirror.example/a".parse().expect("a URL");
    assert_eq!(read(&origins, &url, 0..9).await.expect("through the proxy"), &file[..9]);
    let asked = &proxy.requests()[0];
    assert!(asked.starts_with("get http://mirror.example/a http/1.1"), "{asked}");
    assert!(asked.contains("proxy-authorization: basic "), "{asked}");

    proxy.answer(Answer::redirect("http://10.0.0.1/"));
    let error = whole(&origins, &url).await.expect_err("inside");
    assert!(matches!(error, OriginError::RedirectRefused { .. }), "{error:?}");
    assert_eq!(proxy.requests().len(), 2);
}

// T16
#[tokio::test]
async fn what_bypasses_the_proxy_is_guarded_as_ever() {
    let (proxy, inside) =
        (Server::start(Answer::file(&file())).await, Server::start(Answer::file(&file())).await);
    let url: Url = format!("http://near.example:{}/a", inside.port()).parse().expect("a URL");
    let environment = ProxyEnvironment {
        http: Some(format!("http://proxy.lan:{}", proxy.port())),
        no: Some("near.example".to_owned()),
        ..ProxyEnvironment::default()
    };
    let allow = vec![
        AllowEntry::public(url.join("/").expect("a URL")),
        AllowEntry::public("http://far.example"),
    ];
    let resolver: Arc<dyn Resolve> = Arc::new(Loopback);
    let origins = Origins::with(&config(allow), &environment, &resolver).expect("a config");
    let error = read(&origins, &url, 0..1).await.expect_err("loopback, and no proxy");
    assert!(matches!(error, OriginError::Address { .. }), "{error:?}");
    assert_eq!((proxy.connections(), inside.connections()), (0, 0));
    let far = "http://far.example/a".parse().expect("a URL");
    read(&origins, &far, 0..1).await.expect("through the proxy");
}

#[tokio::test]
async fn an_unreachable_origin_is_the_path_s_fault() {
    let server = Server::start(Answer::text("")).await;
    let (origins, url) = (of(&server), server.url("/a"));
    drop(server);
    let error = whole(&origins, &url).await.expect_err("nobody there");
    assert!(matches!(error, OriginError::Connect { .. } | OriginError::Reply { .. }), "{error:?}");
    assert!(!error.is_final());
}

#[tokio::test]
async fn all_that_is_wrong_with_a_config_is_said_at_once() {
    let config = OriginConfig {
        allow: vec![AllowEntry::public("nonsense"), AllowEntry::public("http://127.0.0.1")],
        proxy: Some("socks5://user:secret@proxy.lan".to_owned()),
        ca_files: vec!["/nonexistent/ca.pem".into()],
        ..OriginConfig::default()
    };
    let resolver: Arc<dyn Resolve> = Arc::new(Loopback);
    let error = Origins::with(&config, &ProxyEnvironment::default(), &resolver).expect_err("wrong");
    assert_eq!(error.problems.len(), 4, "{error}");
    let text = error.to_string();
    for part in ["allow[0]", "allow[1]", "loopback", "proxy: ", "/nonexistent/ca.pem"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("secret"), "{text}");
}
