//! A registry of which a test says every word.
//!
//! A test gives a function from request to reply. A request that it has no reply for fails the test, also if the client copes. Each connection
//! serves one request. All requests are kept, so that a test can look for what must not be in them.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use registry::{Client, Config, Credentials, Limits, RegistryConfig};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET /v2/…?…`
    pub line: String,
    /// Headers by lower-case name.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(String::as_str).unwrap_or_default()
    }
}

/// What to answer.
#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Send that many bytes of the body, then hang up.
    cut: Option<usize>,
    /// Having sent the body, send it again, without end.
    endless: bool,
    /// Wait before hanging up.
    stall: Duration,
}

impl Reply {
    pub fn new(status: u16, body: impl AsRef<[u8]>) -> Self {
        let (headers, stall) = (Vec::new(), Duration::ZERO);
        Self { status, headers, body: body.as_ref().to_vec(), cut: None, endless: false, stall }
    }

    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub fn cut(mut self, n_bytes: usize) -> Self {
        self.cut = Some(n_bytes);
        self
    }

    pub fn endless(mut self) -> Self {
        self.endless = true;
        self
    }

    pub fn stall(mut self, time: Duration) -> Self {
        self.stall = time;
        self
    }
}

type Script = dyn Fn(&Request, usize) -> Option<Reply> + Send + Sync;

/// A running fake.
pub struct Fake {
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<Request>>>,
    unexpected: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
}

impl Fake {
    /// Starts a fake on 127.0.0.1. `script` gets a request and how many like it, by its first line, were there before.
    pub fn start(
        script: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        Self::start_at("127.0.0.1", script)
    }

    pub fn start_at(
        ip: &str,
        script: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((ip, 0)).expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let fake =
            Self { address, log: Arc::default(), unexpected: Arc::default(), stop: Arc::default() };
        let (log, unexpected, stop) =
            (Arc::clone(&fake.log), Arc::clone(&fake.unexpected), Arc::clone(&fake.stop));
        let script: Arc<Script> = Arc::new(script);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (log, unexpected, script) =
                    (Arc::clone(&log), Arc::clone(&unexpected), Arc::clone(&script));
                thread::spawn(move || {
                    // A client that hangs up is the test's business, not the fake's.
                    let _ = serve(stream, &log, &unexpected, &*script);
                });
            }
        });
        fake
    }

    /// The fake's address as an image name has it.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.log).clone()
    }

    /// The first lines of all requests so far.
    pub fn lines(&self) -> Vec<String> {
        self.requests().into_iter().map(|it| it.line).collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let unexpected = lock(&self.unexpected);
        if !unexpected.is_empty() && !thread::panicking() {
            panic!("unexpected requests: {unexpected:#?}");
        }
    }
}

fn serve(
    stream: TcpStream,
    log: &Mutex<Vec<Request>>,
    unexpected: &Mutex<Vec<String>>,
    script: &Script,
) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    if reader.fill_buf()?.first() == Some(&0x16) {
        // Someone starts TLS; say what Go's server says.
        let mut stream = stream;
        return stream.write_all(
            b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent a TLS handshake to an HTTP server.\n",
        );
    }
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(());
    }
    let line = first.trim_end().strip_suffix(" HTTP/1.1").unwrap_or("not HTTP").to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let n_bytes = headers.get("content-length").and_then(|it| it.parse().ok()).unwrap_or(0);
    let mut body = vec![0; n_bytes];
    let complete = reader.read_exact(&mut body).is_ok();
    let request = Request { line, headers, body };
    let n_before = {
        let mut log = lock(log);
        log.push(request.clone());
        log.iter().filter(|it| it.line == request.line).count() - 1
    };
    if !complete {
        return Ok(());
    }
    let reply = script(&request, n_before);
    let reply =
        reply.filter(|_| !request.headers.contains_key("transfer-encoding")).unwrap_or_else(|| {
            lock(unexpected).push(request.line.clone());
            Reply::new(418, "unexpected")
        });
    send(stream, &request, &reply)
}

fn send(mut stream: TcpStream, request: &Request, reply: &Reply) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Fake\r\nConnection: close\r\n", reply.status);
    let has = |name: &str| reply.headers.iter().any(|(it, _)| it.eq_ignore_ascii_case(name));
    if !reply.endless && !has("content-length") {
        head += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all((head + "\r\n").as_bytes())?;
    if !request.line.starts_with("HEAD ") {
        stream.write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len())])?;
        if reply.endless {
            loop {
                stream.write_all(&reply.body)?;
            }
        }
    }
    stream.flush()?;
    thread::sleep(reply.stall);
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Limits that make tests quick.
pub fn limits() -> Limits {
    Limits {
        first_pause: Duration::from_millis(5),
        idle_timeout: Duration::from_millis(500),
        ..Limits::default()
    }
}

/// A configuration in which all of these speak plain HTTP, so that none is asked which it is.
pub fn config(fakes: &[&Fake]) -> Config {
    let table = RegistryConfig { http: Some(true), ..RegistryConfig::default() };
    Config { registries: fakes.iter().map(|it| (it.host(), table.clone())).collect() }
}

/// A client without credentials for these.
pub fn client(fakes: &[&Fake]) -> Client {
    client_with(config(fakes), Credentials::none())
}

pub fn client_with(config: Config, credentials: Credentials) -> Client {
    Client::with_limits(config, credentials, limits())
}
