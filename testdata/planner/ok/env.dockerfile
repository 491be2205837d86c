FROM busybox
ENV A=1 B="two words" C=$A
ENV D one $A value
ENV PATH=$PATH:/opt A=2
RUN env
