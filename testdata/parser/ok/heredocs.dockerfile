FROM a
RUN <<EOF
echo $x
EOF
RUN <<-"E F" 3<<B cat
	tabs
		E F
	E F
b
B
COPY <<EOF <<-'raw.txt' plain /dest/
$x
EOF
	$y
	raw.txt
ADD <<EOF /dest
EOF
ONBUILD RUN <<EOF
z
EOF
RUN ["<<EOF"]
RUN echo '<<EOF' "<<EOF" <<<x
