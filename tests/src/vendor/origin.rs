//! The vendor's HTTP server, in this process: it serves a folder, counts what is asked for, and
//! behaves as badly as it is told to.
//!
//! One thread a connection, and one that accepts; all of them end with the [`Origin`]. What it is told
//! holds from the next request on, and a reply that waits goes on when it is told otherwise.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::SystemTime;

/// Bytes sent at once, so that a reply can stop in the middle.
const BLOCK_BYTES: usize = 16 * 1024;

/// A vendor's server.
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

/// How it answers for a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conduct {
    /// Closes the connection after the request; what a server that is down looks like.
    Hangs,
    /// Another status, with nothing.
    Status(u16),
    /// Sends the client elsewhere.
    Redirects(String),
    /// Sends the whole with 200, whatever part was asked for.
    IgnoresRanges,
    /// Sends that many bytes of the body, then waits until it is told otherwise.
    Stalls(u64),
    /// Sends that many bytes of the body, then closes the connection.
    Cuts(u64),
    /// Sends these bytes with 200 for every request, as a login page does.
    Says(Vec<u8>),
    /// Announces so many bytes and sends the file.
    Announces(u64),
    /// Sends the file with every byte from that one on flipped.
    Flips(u64),
}

/// What was asked for at one path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Requests, whatever the answer was.
    pub requests: u64,
    /// Bytes of bodies that were sent.
    pub bytes: u64,
    /// Answers that nothing has changed.
    pub unchanged: u64,
}

struct Shared {
    root: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    asked: BTreeMap<String, Asked>,
    conduct: BTreeMap<String, Conduct>,
    everywhere: Option<Conduct>,
    open: Vec<TcpStream>,
    is_over: bool,
}

struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
}

impl Origin {
    /// Serves a folder.
    ///
    /// # Panics
    ///
    /// If it cannot listen.
    pub fn serve(root: impl Into<PathBuf>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Mutex::new(State::default());
        let shared = Arc::new(Shared { root: root.into(), state, changed: Condvar::new() });
        let accepting = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Self { address, shared, accepting: Some(accepting) }
    }

    /// Returns the URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// Has it answer so for a path, from now on.
    pub fn behave(&self, path: &str, conduct: Conduct) {
        self.shared.lock().conduct.insert(format!("/{path}"), conduct);
        self.shared.changed.notify_all();
    }

    /// Has it answer so for every path that it was told nothing else of; well, where `None`.
    pub fn behave_everywhere(&self, conduct: Option<Conduct>) {
        self.shared.lock().everywhere = conduct;
        self.shared.changed.notify_all();
    }

    /// Has it answer well everywhere again.
    pub fn behave_well(&self) {
        let mut state = self.shared.lock();
        state.conduct.clear();
        state.everywhere = None;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Returns what was asked for at a path.
    pub fn asked(&self, path: &str) -> Asked {
        self.shared.lock().asked.get(&format!("/{path}")).copied().unwrap_or_default()
    }

    /// Returns what was asked for at all paths that begin so, together.
    pub fn asked_below(&self, path: &str) -> Asked {
        let begin = format!("/{path}");
        let state = self.shared.lock();
        let below = state.asked.iter().filter(|(path, _)| path.starts_with(&begin));
        below.fold(Asked::default(), |sum, (_, asked)| Asked {
            requests: sum.requests + asked.requests,
            bytes: sum.bytes + asked.bytes,
            unchanged: sum.unchanged + asked.unchanged,
        })
    }

    /// Returns every path that was asked for, with what was.
    pub fn all_asked(&self) -> BTreeMap<String, Asked> {
        self.shared.lock().asked.clone()
    }

    /// Forgets what was asked for.
    pub fn forget(&self) {
        self.shared.lock().asked.clear();
    }

    /// Waits until so many bytes were sent of a path.
    ///
    /// # Panics
    ///
    /// If a server thread panicked.
    pub fn wait_for(&self, path: &str, bytes: u64) {
        let path = format!("/{path}");
        let sent =
            |state: &mut State| state.asked.get(&path).map_or(0, |asked| asked.bytes) < bytes;
        drop(self.shared.changed.wait_while(self.shared.lock(), sent).expect("no thread panicked"));
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_over = true;
        for connection in &state.open {
            // It may be closed already.
            drop(connection.shutdown(Shutdown::Both));
        }
        drop(state);
        self.shared.changed.notify_all();
        // Wakes whoever accepts.
        drop(TcpStream::connect(self.address));
        if let Some(accepting) = self.accepting.take() {
            drop(accepting.join());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds this")
    }

    fn conduct(&self, path: &str) -> Option<Conduct> {
        let state = self.lock();
        state.conduct.get(path).or(state.everywhere.as_ref()).cloned()
    }

    fn count(&self, path: &str, add: impl FnOnce(&mut Asked)) {
        add(self.lock().asked.entry(path.to_owned()).or_default());
        self.changed.notify_all();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    std::thread::scope(|scope| {
        for connection in listener.incoming() {
            let Ok(connection) = connection else { continue };
            let mut state = shared.lock();
            if state.is_over {
                return;
            }
            state.open.extend(connection.try_clone());
            drop(state);
            scope.spawn(move || {
                // A client may go at any moment.
                drop(answer_all(&connection, shared));
                drop(connection.shutdown(Shutdown::Both));
            });
        }
    });
}

/// Answers requests on a connection until one side wants no more.
fn answer_all(connection: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut reader = BufReader::new(connection);
    while let Some(request) = read_request(&mut reader)? {
        if !answer(connection, &request, shared)? {
            return Ok(());
        }
    }
    Ok(())
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_ascii_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    // A proxy is asked for whole URLs, and might pass one on.
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => target,
    };
    let mut request =
        Request { method: method.to_owned(), path: path.to_owned(), headers: BTreeMap::new() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            None => return Ok(Some(request)),
            Some((name, value)) => {
                let (name, value) = (name.to_ascii_lowercase(), value.trim().to_owned());
                request.headers.insert(name, value);
            }
        }
    }
}

/// Answers one request; returns whether the connection may stay.
fn answer(mut connection: &TcpStream, request: &Request, shared: &Shared) -> io::Result<bool> {
    shared.count(&request.path, |asked| asked.requests += 1);
    let conduct = shared.conduct(&request.path);
    let mut bare = |status: u16, more: &str| {
        let head = format!("HTTP/1.1 {status} -\r\ncontent-length: 0\r\n{more}\r\n");
        connection.write_all(head.as_bytes()).map(|()| true)
    };
    let (mut body, modified) = match &conduct {
        Some(Conduct::Hangs) => return Ok(false),
        Some(Conduct::Status(status)) => return bare(*status, ""),
        Some(Conduct::Redirects(to)) => return bare(302, &format!("location: {to}\r\n")),
        Some(Conduct::Says(bytes)) => (bytes.clone(), SystemTime::now()),
        _ => match read_file(&shared.root, &request.path) {
            Some(file) => file,
            None => return bare(404, ""),
        },
    };
    if let Some(Conduct::Flips(from)) = conduct {
        body.iter_mut().skip(from as usize).for_each(|byte| *byte = !*byte);
    }
    let modified = httpdate::fmt_http_date(modified);
    let tag = format!("\"{}\"", &blake3::hash(&body).to_hex()[..16]);
    let header = |name: &str| request.headers.get(name);
    let is_known = match header("if-none-match") {
        Some(tags) => tags.contains(&tag),
        None => header("if-modified-since") == Some(&modified),
    };
    if is_known {
        shared.count(&request.path, |asked| asked.unchanged += 1);
        return bare(304, &format!("etag: {tag}\r\nlast-modified: {modified}\r\n"));
    }
    let same =
        header("if-range").is_none_or(|validator| *validator == tag || *validator == modified);
    let asked_range = header("range").filter(|_| same && conduct != Some(Conduct::IgnoresRanges));
    let range = asked_range.and_then(|range| parse_range(range, body.len()));
    if asked_range.is_some() && range.is_none() {
        return bare(416, &format!("content-range: bytes */{}\r\n", body.len()));
    }
    let whole = body.len();
    let (status, range) = range.map_or((200, 0..whole), |range| (206, range));
    let announced = match conduct {
        Some(Conduct::Announces(bytes)) => bytes,
        _ => range.len() as u64,
    };
    let part = match status {
        206 => format!("content-range: bytes {}-{}/{whole}\r\n", range.start, range.end - 1),
        _ => String::new(),
    };
    let head = format!(
        "HTTP/1.1 {status} -\r\ncontent-length: {announced}\r\netag: {tag}\r\n\
         last-modified: {modified}\r\naccept-ranges: bytes\r\ndate: {}\r\n{part}\r\n",
        httpdate::fmt_http_date(SystemTime::now())
    );
    connection.write_all(head.as_bytes())?;
    if request.method == "HEAD" {
        return Ok(true);
    }
    let is_whole = send(connection, &body[range], &request.path, shared)?;
    Ok(is_whole && !matches!(conduct, Some(Conduct::Announces(_))))
}

/// Sends a body as the path's conduct has it; returns whether all of it went.
fn send(mut connection: &TcpStream, body: &[u8], path: &str, shared: &Shared) -> io::Result<bool> {
    let mut sent = 0;
    while sent < body.len() {
        let limit = match shared.conduct(path) {
            Some(Conduct::Stalls(bytes) | Conduct::Cuts(bytes)) => bytes as usize,
            _ => body.len(),
        };
        let end = body.len().min(limit).min(sent + BLOCK_BYTES);
        if sent >= end {
            if matches!(shared.conduct(path), Some(Conduct::Cuts(_))) {
                return Ok(false);
            }
            let state = shared.lock();
            let stalls = |state: &mut State| {
                let conduct = state.conduct.get(path).or(state.everywhere.as_ref());
                !state.is_over
                    && matches!(conduct, Some(Conduct::Stalls(bytes)) if *bytes as usize <= sent)
            };
            let state = shared.changed.wait_while(state, stalls).expect("no thread panicked");
            if state.is_over {
                return Ok(false);
            }
            continue;
        }
        connection.write_all(&body[sent..end])?;
        shared.count(path, |asked| asked.bytes += (end - sent) as u64);
        sent = end;
    }
    Ok(true)
}

fn read_file(root: &Path, path: &str) -> Option<(Vec<u8>, SystemTime)> {
    let relative = decoded(path.split('?').next()?);
    let file = root.join(relative.trim_start_matches('/'));
    // Clients normalise paths before they ask, and tests ask for what they wrote.
    let is_below = !relative.split('/').any(|part| part == "..") && file.is_file();
    let modified = fs::metadata(&file).ok().filter(|_| is_below)?.modified().ok()?;
    Some((fs::read(file).ok()?, modified))
}

/// Returns a path with its `%xx` decoded.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut parts = path.split('%');
    bytes.extend(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let hex = part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match hex {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(&part.as_bytes()[2..]);
            }
            None => bytes.extend([b"%", part.as_bytes()].concat()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads `bytes=A-B`, `bytes=A-` and `bytes=-N`.
fn parse_range(text: &str, len: usize) -> Option<std::ops::Range<usize>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (first, last) {
        ("", last) => len.saturating_sub(last.parse().ok()?)..len,
        (first, "") => first.parse().ok()?..len,
        (first, last) => first.parse().ok()?..len.min(last.parse::<usize>().ok()?.checked_add(1)?),
    };
    (range.start < range.end).then_some(range)
}
