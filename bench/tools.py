"""The builders that are compared, how each is brought into a state, and what they are asked."""
import os, subprocess, sys

from cases import write

LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]


class Tool:
    env = {}
    daemon = None
    has_memory = True

    def __init__(self, a):
        self.a = a

    def sh(self, cmd, ok=False):
        p = subprocess.run(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **self.env})
        if p.returncode and not ok:
            sys.exit(f"bench: {self.name}: {' '.join(cmd)}: status {p.returncode}\n{p.stdout.decode(errors='replace')[-1500:]}")
        return p.stdout.decode(errors="replace")

    def build(self, d, out):
        """The commands that build the project in `d`, and write an OCI archive to `out` if that is not None."""
        raise NotImplementedError

    def clear(self):
        """Forgets everything but the base image."""


class Kiln(Tool):
    name = "kiln"

    def __init__(self, a):
        super().__init__(a)
        self.bin, self.root = os.environ["KILN"], a.disk + "/kiln"
        self.env = {"KILN_ROOT": self.root}
        self.sh([self.bin, "pull", a.base])
        # A first build unpacks the base, as any earlier build on it would have done.
        d = a.disk + "/kiln-warm"
        write(d + "/Dockerfile", f"FROM {a.base}\nRUN true\n".encode())
        self.sh([self.bin, "build", "--network", "host", "-q", "-t", "warm", d])
        self.sh([self.bin, "rmi", "warm"], ok=True)
        self.sh([self.bin, "system", "prune", "--force"], ok=True)
        self.sh(["cp", "-a", self.root, self.root + ".base"])

    def version(self):
        return self.sh([self.bin, "version"]).split("\n")[0]

    def clear(self):
        self.sh(["rm", "-rf", "--one-file-system", self.root])
        self.sh(["cp", "-a", self.root + ".base", self.root])

    def build(self, d, out):
        export = ["-o", f"type=oci,dest={out}"] if out else []
        return [[self.bin, "build", "--progress", "plain", "--network", "host", "-t", "bench", *export, d]]


class Docker(Tool):
    name = "docker"

    def __init__(self, a):
        super().__init__(a)
        self.env = {"DOCKER_BUILDKIT": "1", "DOCKER_CONFIG": a.work + "/docker-config"}
        self.host = f"unix://{a.work}/dockerd/sock"
        self.cli = ["/usr/bin/docker", "-H", self.host]
        self.daemon = a.dockerd
        self.sh([*self.cli, "pull", "-q", a.base])

    def version(self):
        return self.sh([*self.cli, "version", "--format", "docker {{.Server.Version}}, its BuildKit"]).strip()

    def clear(self):
        self.sh([*self.cli, "rmi", "-f", "bench"], ok=True)
        self.sh([*self.cli, "builder", "prune", "-af"])

    def build(self, d, out):
        cmds = [[*self.cli, "build", "--progress", "plain", "--network", "host", "-t", "bench", d]]
        if out:
            # Debian's docker has no exporter for OCI archives.
            cmds.append(["skopeo", "copy", "-q", "--src-daemon-host", self.host, "docker-daemon:bench:latest", f"oci-archive:{out}"])
        return cmds


class BuildKit(Tool):
    """A BuildKit of the user's, by its address. Its daemon's memory cannot be seen from here."""
    name = "buildkit"
    has_memory = False

    def __init__(self, a):
        super().__init__(a)
        self.cli = ["buildctl", "--addr", a.buildkit]

    def version(self):
        return "buildkit " + self.sh([*self.cli, "--version"]).split()[2]

    def clear(self):
        self.sh([*self.cli, "prune", "--all"])

    def build(self, d, out):
        output = f"type=oci,dest={out}" if out else "type=image,name=bench"
        return [[*self.cli, "build", "--progress", "plain", "--frontend", "dockerfile.v0", "--opt", "force-network-mode=host",
                 "--allow", "network.host", "--local", f"context={d}", "--local", f"dockerfile={d}", "--output", output]]


class Buildah(Tool):
    name = "buildah"

    def __init__(self, a):
        super().__init__(a)
        self.cli = ["buildah", "--root", a.disk + "/buildah/root", "--runroot", a.disk + "/buildah/run", "--storage-driver", "overlay"]
        self.sh([*self.cli, "pull", "-q", "--tls-verify=false", a.base])

    def sh(self, cmd, ok=False):
        os.environ.pop("DOCKER_CONFIG", None)
        return super().sh(cmd, ok)

    def version(self):
        return " ".join(self.sh([*self.cli, "--version"]).split()[:3])

    def clear(self):
        self.sh([*self.cli, "rmi", "-f", "localhost/bench"], ok=True)
        self.sh([*self.cli, "rmi", "--prune", "-f"], ok=True)

    def build(self, d, out):
        cmds = [[*self.cli, "build", "--layers", "--jobs", "6", "--isolation", "oci", "--runtime", "/usr/sbin/runc", "--network", "host", *LIMITS, "--tls-verify=false", "-t", "bench", d]]
        if out:
            cmds.append([*self.cli, "push", "-q", "bench", f"oci-archive:{out}"])
        return cmds


TOOLS = {it.name: it for it in (Kiln, Docker, BuildKit, Buildah)}
