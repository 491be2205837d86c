FROM a
RUN [ "a b" , "\u00e9\n" ]
RUN ['a', 'b']
CMD ["a" "b"]
ENTRYPOINT []
SHELL ["/bin/bash", "-c"]
VOLUME ["/a b", "/c"]
COPY ["a b", "c d"]
