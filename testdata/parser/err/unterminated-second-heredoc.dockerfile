FROM a
COPY <<A <<-"B" /
a
A
b
