//! A web server for downloads, repositories and contexts.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
};

/// A web server of one page per path, which remembers what it was asked.
pub(crate) struct Web {
    pub(crate) address: String,
    asked: Arc<Mutex<Vec<String>>>,
    pages: Arc<Mutex<Vec<Page>>>,
}

impl Web {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let pages: Arc<Mutex<Vec<Page>>> = Arc::default();
        let (log, known) = (Arc::clone(&asked), Arc::clone(&pages));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let (log, known) = (Arc::clone(&log), Arc::clone(&known));
                std::thread::spawn(move || {
                    serve(&mut stream, &log, &known.lock().expect("pages").clone())
                });
            }
        });
        Self { address, asked, pages }
    }

    /// Puts a page: its path, its body, and header lines.
    pub(crate) fn page(&self, path: &str, body: &[u8], headers: &str) {
        let mut pages = self.pages.lock().expect("pages");
        pages.retain(|it| it.path != path);
        pages.push(Page {
            path: path.to_owned(),
            body: body.to_vec(),
            headers: headers.to_owned(),
        });
    }

    /// The request lines since the last call, with the authorization where one was sent.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().expect("a log"))
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

#[derive(Clone)]
struct Page {
    path: String,
    body: Vec<u8>,
    /// Whole lines.
    headers: String,
}

fn serve(stream: &mut std::net::TcpStream, log: &Mutex<Vec<String>>, pages: &[Page]) {
    let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
    let Some(Ok(first)) = lines.next() else { return };
    let mut request = first.rsplit_once(' ').map_or("", |it| it.0).to_owned();
    let mut tag = None;
    for line in lines.map_while(Result::ok).take_while(|it| !it.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap_or((&line, ""));
        match &*name.to_lowercase() {
            "if-none-match" => tag = Some(value.to_owned()),
            "authorization" => request.push_str(&format!(" {value}")),
            _ => {}
        }
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let found = pages.iter().find(|it| it.path == path).cloned();
    let is_head = request.starts_with("HEAD");
    if let Ok(mut log) = log.lock() {
        log.push(request);
    }
    let answer = match &found {
        None => {
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()
        }
        Some(Page { headers, .. }) if tag.is_some_and(|it| headers.contains(&it)) => {
            format!("HTTP/1.1 304 Not Modified\r\n{headers}connection: close\r\n\r\n")
        }
        Some(Page { body, headers, .. }) => {
            let status = if headers.contains("location:") { "302 Found" } else { "200 OK" };
            format!(
                "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            )
        }
    };
    let is_whole = answer.starts_with("HTTP/1.1 200") && !is_head;
    let _ = stream.write_all(answer.as_bytes());
    if let (true, Some(page)) = (is_whole, found) {
        let _ = stream.write_all(&page.body);
    }
    let _ = stream.flush();
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read(&mut [0; 16]);
}
