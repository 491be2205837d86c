# kiln=strict-heredoc
#: image looped {"OnBuild": ["RUN <<EOF\ntrigger\nEOF"]}
FROM looped
RUN <<EOF
a
b
EOF
RUN <<EOF
#!/bin/sh
a shebang says how it runs
EOF
RUN sh -x <<EOF
not the lone body
EOF
RUN <<EOF && true
not the lone body either
EOF
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN <<-'EOF'
	in bash
EOF
SHELL ["/usr/bin/python3", "-c"]
RUN <<EOF
print("no shell")
EOF
COPY <<EOF /file
no script
EOF
