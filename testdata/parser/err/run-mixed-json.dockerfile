FROM a
RUN ["a", 1]
CMD [["a"]]
ENTRYPOINT [null, "x"]
